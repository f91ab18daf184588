#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: socket-to-socket acceleration of TCP on one node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sockops
short_description: Accelerate TCP between sockets of one node
version_added: "0.1.0"
description:
  - Makes TCP between programs in the named cgroups of one node go socket to socket
    (BPF sock_ops, sk_msg and a socket hash) instead of through the TCP/IP stack.
  - Acts in the named cgroups only. What cannot be accelerated stays on the kernel's path.
  - Runs once for the whole node. With O(state=absent) nothing is left behind.
options:
  state:
    description: Whether sockops is on the node.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description:
      - V(on) accelerates. V(off) is loaded and leaves everything to the kernel.
        V(drain) finishes what is accelerated and accelerates nothing new.
    type: str
    choices: ["on", "off", "drain"]
    default: "on"
  cgroups:
    description:
      - The cgroups to accelerate. Both ends of a connection must be in one of them.
      - Each is a path below the cgroup2 mount, absolute or relative to it, or a dictionary
        with one of C(path), C(systemd_unit) and C(kubernetes_pod) (the pod's UID, found
        under both cgroup drivers of the kubelet), and optionally C(mode) and C(ports).
      - Descendants are included; of nested ones that are named the innermost decides.
    type: list
    elements: raw
    default: []
  ports:
    description:
      - Ports and ranges of ports to accelerate, where a cgroup names none itself.
        Either end's port may match. Empty means all.
    type: list
    elements: raw
    default: []
  maximum_connections:
    description:
      - Connections the table has room for; more stay on TCP.
      - A change replaces the table. Connections that are open then go on by TCP.
    type: int
    default: 32768
  receive_memory_limit:
    description:
      - Bytes that may wait unread at one socket; then the sender is slowed by TCP's window.
    type: int
    default: 4194304
  adopt_existing:
    description:
      - Whether a run that changes something also takes over connections that are open already.
      - Those it cannot take over stay on TCP; a note of the result says how many and why.
    type: bool
    default: false
  loader:
    description:
      - V(libbpf) loads the programs as they were built with the node release, and relocates them by
        the kernel's BTF. V(bcc) compiles them on the node with the headers of the kernel that runs, for
        a kernel without BTF; takes bcc's Python package and the headers.
      - Another loader is another version of the programs. Live connections stay accelerated.
    type: str
    choices: [libbpf, bcc]
    default: libbpf
  relays:
    description:
      - Pairs of servers of this node whose accepted connections the kernel joins. The n-th
        connection that waits at C(from) is joined with the n-th that waits at C(to); what the
        client of one sends goes out to the client of the other, and its server does not see it.
      - Each has C(from) and C(to), an address and a port, such as C(127.0.0.1:1234) and
        C([::1]:4321). Both servers must be in one of O(cgroups); their clients need not.
    type: list
    elements: dict
    default: []
  relay_object_digest:
    description: As O(object_digest), of the object for relays.
    type: str
  denied_networks:
    description:
      - Connections with an end in one of these networks are never accelerated, neither new ones
        nor, from the run on that brings the rule, live ones. They stay under what only packets meet,
        such as iptables, conntrack and tcpdump.
      - Each is an address, a network, or a dictionary with C(network) and C(ports). Both ends of the
        connection are looked at, as either end sees them; with ports, either end's must be one of them.
    type: list
    elements: raw
    default: []
  denied_nft_sets:
    description:
      - Sets of nftables in the host's network namespace, each as C(family), C(table) and C(set), whose
        elements are denied as those of O(denied_networks) are. They are read at each run.
      - Of type ipv4_addr or ipv6_addr, or one of these concatenated with inet_service.
    type: list
    elements: dict
    default: []
  denied_executables:
    description:
      - Names, or absolute paths, of programs that redirected sockets do not suit. A cgroup with a process
        of one stays on TCP; of nested cgroups the one that the process is in. A note of the result names it.
      - The processes of O(cgroups) are looked at in each run. An empty list switches that off.
    type: list
    elements: str
    default: [haproxy, systemd-socket-proxyd]
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
  - Linux 5.11 or newer, with BTF or with O(loader=bcc); see the module node_capabilities
  - libbpf 0.5 or newer
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Accelerate every pod of the node
  sockops:
    cgroups:
      - kubepods.slice

- name: Accelerate nginx and its sidecar on Istio's ports
  sockops:
    cgroups:
      - systemd_unit: nginx.service
      - systemd_unit: envoy.service
    ports: [15001, 15006, "8000-8100"]

- name: Join the connections that two servers accept
  sockops:
    cgroups:
      - system.slice
    relays:
      - from: 127.0.0.1:1234
        to: 127.0.0.1:4321

- name: Leave a database's port, and what a firewall's set names, to the kernel's path
  sockops:
    cgroups:
      - kubepods.slice
    denied_networks:
      - {network: 192.168.1.5, ports: [6379]}
    denied_nft_sets:
      - {family: inet, table: filter, set: blocked}

- name: Take it off the node
  sockops:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "sockops.set_mode", "summary": "switch sockops on"}]
mode:
  description: The mode of the node; what an operator holds wins over O(mode). Null when absent.
  returned: always
  type: str
  sample: "on"
cgroups:
  description: The accelerated cgroups by their path below the mount, with mode and ports.
  returned: always
  type: dict
  sample: {"kubepods.slice": {"mode": "on", "ports": "all", "receive_memory_limit": 4194304}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel import record
from ansible.module_utils.meshaccel.accelerators.sockops import NAME
from ansible.module_utils.meshaccel.accelerators.sockops.service import Sockops
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "mode": {"type": "str", "choices": ["on", "off", "drain"], "default": "on"},
    "cgroups": {"type": "list", "elements": "raw", "default": []},
    "ports": {"type": "list", "elements": "raw", "default": []},
    "maximum_connections": {"type": "int", "default": 32768},
    "receive_memory_limit": {"type": "int", "default": 4194304},
    "adopt_existing": {"type": "bool", "default": False},
    "loader": {"type": "str", "choices": ["libbpf", "bcc"], "default": "libbpf"},
    "relays": {"type": "list", "elements": "dict", "default": []},
    "denied_networks": {"type": "list", "elements": "raw", "default": []},
    "denied_nft_sets": {"type": "list", "elements": "dict", "default": []},
    "denied_executables": {
        "type": "list",
        "elements": "str",
        "default": ["haproxy", "systemd-socket-proxyd"],
    },
    "object_digest": {"type": "str"},
    "relay_object_digest": {"type": "str"},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    paths = NodePaths()
    with telling_errors(module):
        node, desired = Sockops.wished(module.params, paths)
        result = record.converge(paths, NAME, desired, node.converge, check_mode=module.check_mode)
    after = result.after
    succeed(module, result, mode=after.get("mode"), cgroups=after.get("cgroups", {}))


if __name__ == "__main__":
    main()
