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
  - Linux 5.11 or newer with BTF; see the module node_capabilities
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
from ansible.module_utils.meshaccel.errors import MeshaccelError
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import fail, succeed

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "mode": {"type": "str", "choices": ["on", "off", "drain"], "default": "on"},
    "cgroups": {"type": "list", "elements": "raw", "default": []},
    "ports": {"type": "list", "elements": "raw", "default": []},
    "maximum_connections": {"type": "int", "default": 32768},
    "receive_memory_limit": {"type": "int", "default": 4194304},
    "object_digest": {"type": "str"},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    settings = dict(module.params)
    digest = settings.pop("object_digest")
    try:
        sockops = Sockops.on_this_node(NodePaths(), digest)
        desired = sockops.parse(settings)
        result = record.recorded(
            sockops.paths,
            NAME,
            lambda note: sockops.converge(desired, check_mode=module.check_mode, before_action=note),
            keeps=desired.present,
            check_mode=module.check_mode,
        )
    except (MeshaccelError, OSError) as error:
        fail(module, error)
    after = result.after
    succeed(module, result, mode=after.get("mode"), cgroups=after.get("cgroups", {}))


if __name__ == "__main__":
    main()
