# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What stays on TCP although its cgroup is opted in: denied networks and executables."""
