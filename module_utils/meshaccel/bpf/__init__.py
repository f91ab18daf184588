# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""BPF through libbpf: objects, maps, layouts, attachments, probes."""
