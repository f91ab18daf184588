# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks at the node's TCP sockets: who they are, how far they are, who is whose peer."""

NAME = "sockops_inspection"
