# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's own load balancer, IPVS: virtual services and their real servers."""

#: The part of the node, and the name of what it keeps in /etc/meshaccel.
NAME = "ipvs_service"
