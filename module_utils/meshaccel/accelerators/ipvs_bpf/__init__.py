# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""ipvs_bpf: IPVS without conntrack, switched online.

Data flows one way: desired -> observe -> plan (pure) -> handlers.
"""

NAME = "ipvs_bpf"
