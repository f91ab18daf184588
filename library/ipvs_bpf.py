#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: IPVS's services without conntrack on one node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ipvs_bpf
short_description: Take IPVS's services from conntrack
version_added: "0.1.0"
description:
  - IPVS goes on to schedule. What conntrack did for the services' flows, masquerading clients and
    giving replies back to them, is done by BPF programs at the devices, and conntrack is bypassed.
  - Switches online in both directions. What cannot be taken stays native, with the reason.
options:
  state:
    description:
      - Whether ipvs_bpf is on the node; V(absent) leaves nothing behind, and gives kernel settings
        back.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description:
      - V(bpf) takes the flows of the chosen services from conntrack, online. V(native) gives them
        back, new ones at once; what is open has O(drain_seconds) to end.
    type: str
    choices: [native, bpf]
    default: native
  fast_path:
    description:
      - Whether packets of a session go from device to device once its handshake is seen, past FORWARD
        and IPVS's own hooks. NetworkPolicy then sees only how sessions begin and end.
    type: bool
    default: false
  services:
    description:
      - Services of IPVS to take, each with C(address), C(port), C(protocol) (tcp or udp; tcp), and
        C(masquerade), which is never, always, or by default remote (all but clients in
        O(local_networks)).
    type: list
    elements: dict
    default: []
  follow:
    description:
      - >-
        Which services are taken beside the listed ones: V(all) that IPVS has, or those of kube-proxy,
        masqueraded as its own rules and sets say. New ones are taken as they come.
    type: str
    choices: [none, all, kube_proxy]
    default: none
  masquerade:
    description:
      - How the services of O(follow=all) masquerade.
    type: str
    choices: [never, always, remote]
    default: remote
  local_networks:
    description:
      - Networks whose clients V(remote) leaves as they are; with O(follow=kube_proxy), in place of
        those in kube-proxy's rules.
    type: list
    elements: str
    default: []
  masquerade_all:
    description:
      - Whether kube-proxy masquerades everything; by default as its rules say.
    type: bool
  devices:
    description:
      - Devices towards clients and real servers, as names or patterns. Loopback, dummies, and parts
        of a bond or team are left out by themselves. Services whose packets leave by another device
        stay native.
    type: list
    elements: str
    default: ["*"]
  source_addresses:
    description:
      - What replaces clients' addresses, by name or pattern of the device, as C(ipv4), C(ipv6), and
        C(ports), 1024-29999 by default. What is left open is the device's own first address.
      - Ports must be apart from C(net.ipv4.ip_local_port_range) unless the address is a dedicated
        one, which sockets do not get by themselves.
    type: dict
    default: {}
  mark_bits:
    description:
      - Two bits of the packet mark that nobody else uses.
    type: list
    elements: raw
    default: [0x1000, 0x2000]
  mark_accepted:
    description:
      - Bits of the packet mark that replies and masqueraded requests get as well, for firewalls that
        accept by mark; to them nothing of a session is C(ESTABLISHED).
      - By default the one of kube-proxy's own, which its C(KUBE-FORWARD) accepts, where kube-proxy is
        followed, and else none.
    type: raw
  maximum_sessions:
    description:
      - Sessions the table has room for; more stay with conntrack. A change drains and replaces the
        table.
    type: int
    default: 65536
  observe_seconds:
    description:
      - How long, before new flows are taken, those that conntrack has are noted.
    type: int
    default: 3
  drain_seconds:
    description:
      - How long sessions may take to end when all is given back to conntrack.
    type: int
    default: 300
  kernel_settings:
    description:
      - Settings below C(net.ipv4.vs), over those that suit the kernel; null leaves one as it is.
    type: dict
    default: {}
  tencent_reload:
    description:
      - On a kernel of TencentOS, whose IPVS has a switch of its own, whether ip_vs may be unloaded
        and loaded with it, on a node without connections.
    type: bool
    default: false
  object_digest:
    description:
      - The digest of the BPF object that is to run, from the node release.
        Lets check mode plan on a node where nothing is installed yet.
    type: str
extends_documentation_fragment: []
attributes:
  check_mode:
    description: Plans exactly what a run would do, and changes nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
requirements:
  - Linux 5.11 or newer; see the module node_capabilities
  - libbpf 0.5 or newer, nft; with O(follow=kube_proxy) ipset and iptables-save
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Take every service of kube-proxy's from conntrack
  ipvs_bpf:
    mode: bpf
    follow: kube_proxy

- name: Take one service, masqueraded with an address of its own
  ipvs_bpf:
    mode: bpf
    services:
      - {address: 10.96.0.10, port: 53, protocol: udp, masquerade: always}
    source_addresses:
      eth0: {ipv4: 192.0.2.7, ports: "1024-65535"}

- name: Give all back to conntrack
  ipvs_bpf:
    mode: native

- name: Take it off the node
  ipvs_bpf:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "ipvs_bpf.set_mode", "summary": "switch ipvs_bpf on"}]
mode:
  description: V(native), or the mode of the programs, unless an operator holds another. Null when absent.
  returned: always
  type: str
  sample: "on"
services:
  description: The services that are taken with their masquerade, or their number where they are many.
  returned: always
  type: raw
  sample: {"tcp 10.96.0.1:443": "remote"}
native:
  description: The services that stay native, with the reason.
  returned: always
  type: dict
  sample: {"tcp 10.96.0.9:80": "10.0.0.1 is this node itself"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel import record
from ansible.module_utils.meshaccel.accelerators.ipvs_bpf import NAME
from ansible.module_utils.meshaccel.accelerators.ipvs_bpf.service import IpvsBpf
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "mode": {"type": "str", "choices": ["native", "bpf"], "default": "native"},
    "fast_path": {"type": "bool", "default": False},
    "services": {"type": "list", "elements": "dict", "default": []},
    "follow": {"type": "str", "choices": ["none", "all", "kube_proxy"], "default": "none"},
    "masquerade": {"type": "str", "choices": ["never", "always", "remote"], "default": "remote"},
    "local_networks": {"type": "list", "elements": "str", "default": []},
    "masquerade_all": {"type": "bool"},
    "devices": {"type": "list", "elements": "str", "default": ["*"]},
    "source_addresses": {"type": "dict", "default": {}},
    "mark_bits": {"type": "list", "elements": "raw", "default": [0x1000, 0x2000]},
    "mark_accepted": {"type": "raw"},
    "maximum_sessions": {"type": "int", "default": 65536},
    "observe_seconds": {"type": "int", "default": 3},
    "drain_seconds": {"type": "int", "default": 300},
    "kernel_settings": {"type": "dict", "default": {}},
    "tencent_reload": {"type": "bool", "default": False},
    "object_digest": {"type": "str"},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    paths = NodePaths()
    with telling_errors(module):
        node, desired = IpvsBpf.wished(module.params, paths)
        result = record.converge(paths, NAME, desired, node.converge, check_mode=module.check_mode)
    after = result.after
    succeed(module, result, mode=after.get("mode"), services=after.get("services", {}), native=result.native)


if __name__ == "__main__":
    main()
