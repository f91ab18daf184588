# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""ipvs_bpf: IPVS schedules, and what conntrack did for services' flows is done in BPF.

Data flows one way: desired -> observe -> resolution -> plan (pure) -> handlers.
"""

NAME = "ipvs_bpf"
