# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""ipvs_bpf: IPVS schedules, and what conntrack did for services' flows is done in BPF.

Data flows one way: desired -> observe -> resolution -> plan (pure) -> handlers. What
is done to one thing is planned in a file and carried out in another: mode_plan and
mode_handlers, map_plan and map_handlers; plan itself with device_handlers and
version_handlers.

Words: a *flow* is an entry of the programs' table, one direction of a session at one
point, ingress or egress. A *session* is a TCP connection or an exchange of datagrams
that the programs have taken from conntrack, with up to three flows. A *connection* is
IPVS's own entry, or TCP's. To *reserve* a source port is to enter a flow that no
session may take, since conntrack has given that port away. *Native* is IPVS with
conntrack; a *legacy* flow is one that conntrack had before we came.
"""

NAME = "ipvs_bpf"
