# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The accelerators. None of them imports another."""
