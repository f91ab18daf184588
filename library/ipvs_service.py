#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: virtual services of IPVS and their real servers on one node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ipvs_service
short_description: Have virtual services of IPVS and their real servers on a node
version_added: "0.1.0"
description:
  - Makes the listed services and their servers what they are wished to be, in one call for all of them.
    The kernel is sent messages for what differs alone.
  - A service that this module has made is removed once it is not in the list any more. One that
    somebody else has made is left alone, unless it is listed or O(purge) is set.
  - Keeps the list on the node, where the boot unit brings it back from.
options:
  state:
    description: With V(absent) all services that this module has made are removed.
    type: str
    choices: [present, absent]
    default: present
  services:
    description:
      - All services of the node that are wished.
      - Each has C(address), C(port) and C(protocol) (V(tcp), V(udp) or V(sctp), by default V(tcp)), or
        C(firewall_mark) and C(family) (V(ipv4) or V(ipv6)). Port 0 is every port; it takes persistence.
      - C(scheduler), by default V(wlc), and C(flags), a list of V(ops), V(sh-port), V(sh-fallback),
        V(mh-port) and V(mh-fallback).
      - C(persistence_timeout) in seconds, C(persistence_netmask) as a prefix length or dotted,
        C(persistence_engine) such as V(sip).
      - C(servers), all servers of the service. Each is C(ADDRESS:PORT), or a dictionary with C(address) and
        C(port) (by default the service's), C(weight) (by default 1), C(upper_threshold) and
        C(lower_threshold) in connections, and C(forwarding), one of V(masquerade), V(direct_routing)
        and V(tunnel).
      - A server with forwarding V(tunnel) has C(tunnel_type) V(ipip), V(gue) or V(gre), with V(gue)
        C(tunnel_port), and C(tunnel_checksum) V(none), V(full) or, with V(gue), V(remote).
    type: list
    elements: raw
    default: []
  purge:
    description: Whether services that are not listed are removed, whoever has made them.
    type: bool
    default: false
  drain_seconds:
    description:
      - A server that leaves gets weight 0. It is removed when it has no connections any more, and at
        the latest after so many seconds. The wait is one for all servers of a run. V(0) removes at once.
    type: int
    default: 5
extends_documentation_fragment: []
attributes:
  check_mode:
    description: Plans exactly what a run would do, and changes nothing.
    support: full
  diff_mode:
    description: Shows the services that differ before and after.
    support: full
requirements:
  - a kernel with IPVS; the module ip_vs is loaded if it is not
  - pyroute2 on the node where something is to be changed
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Have a web server's and a name server's service
  ipvs_service:
    services:
      - address: 10.96.0.80
        port: 80
        scheduler: rr
        servers: [10.244.1.5:8080, 10.244.2.7:8080]
      - address: fd00:96::10
        port: 53
        protocol: udp
        servers:
          - {address: fd00:244::3, weight: 3}
          - {address: fd00:244::4, weight: 1}

- name: Have servers answer clients directly, through tunnels of UDP
  ipvs_service:
    services:
      - address: 192.0.2.10
        port: 443
        scheduler: mh
        flags: [mh-port, mh-fallback]
        servers:
          - {address: 198.51.100.1, forwarding: tunnel, tunnel_type: gue, tunnel_port: 6080}
          - {address: 198.51.100.2, forwarding: tunnel, tunnel_type: gue, tunnel_port: 6080}

- name: Remove what was made
  ipvs_service:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "ipvs.make_service", "summary": "make tcp 10.96.0.80:80 (rr) with 2 servers"}]
messages:
  description: How many messages were sent to the kernel to change its table.
  returned: always
  type: int
  sample: 3
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel import record
from ansible.module_utils.meshaccel.ipvs import NAME
from ansible.module_utils.meshaccel.ipvs.desired import parse
from ansible.module_utils.meshaccel.ipvs.service import Services
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "services": {"type": "list", "elements": "raw", "default": []},
    "purge": {"type": "bool", "default": False},
    "drain_seconds": {"type": "int", "default": 5},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    paths = NodePaths()
    with telling_errors(module):
        desired = parse(module.params)
        run = Services(paths).converge
        result = record.converge(paths, NAME, desired, run, check_mode=module.check_mode)
    succeed(module, result, messages=result.messages)


if __name__ == "__main__":
    main()
