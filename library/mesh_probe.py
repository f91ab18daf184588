#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: latency and throughput of TCP on a node, accelerated and not."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mesh_probe
short_description: Measure TCP on a node, accelerated and not
version_added: "0.1.0"
description:
  - Measures a TCP endpoint, or without O(address) an echo pair of its own on loopback.
  - With O(cgroup) it compares. The C(on) arm runs in a child of that cgroup and so under its acceleration,
    the C(off) arm in a child of the root cgroup. The arms alternate, each run has connections of its own.
  - No accelerator is switched and live traffic is left alone. Processes and cgroups of the probe are gone
    when it ends, also after a failure.
  - Connects to nothing but the endpoint that is named.
options:
  address:
    description: The endpoint's address or name. Without it the probe echoes to itself.
    type: str
  port:
    description: The endpoint's port.
    type: int
  cgroup:
    description:
      - A cgroup below the cgroup2 mount, absolute or relative to it, to compare with the root cgroup.
      - With O(address), the service at the other end must be in an accelerated cgroup as well.
    type: str
  request:
    description: What each message sends. Without it, O(message_bytes) bytes.
    type: str
  response:
    description: The exact bytes that answer a request. Without it the request is expected back.
    type: str
  message_bytes:
    description: Bytes in each message where no O(request) is given.
    type: int
    default: 1024
  connections:
    description: Connections of each run, each with one request under way at a time.
    type: int
    default: 1
  messages:
    description: Messages of each run, over all its connections.
    type: int
    default: 2000
  duration:
    description: Seconds for all runs together, which share them evenly. A run ends early when it is done.
    type: float
    default: 10
  pairs:
    description: How often each arm runs; without O(cgroup) there are twice as many runs of the one arm.
    type: int
    default: 2
extends_documentation_fragment: []
attributes:
  check_mode:
    description: The module measures in check mode too; it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
requirements:
  - root, where O(cgroup) is given
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: See what sockops gains on this node
  mesh_probe:
    cgroup: kubepods.slice
  register: probe

- name: Stop a roll-out where accelerated connections are slower
  ansible.builtin.assert:
    that:
      - probe.redirected
      - probe.ratio.latency_p50 < 1.05

- name: Measure a local Redis
  mesh_probe:
    address: 127.0.0.1
    port: 6379
    request: "PING\r\n"
    response: "+PONG\r\n"
    connections: 8
"""

RETURN = r"""
arms:
  description:
    - The median over its runs of each figure, for the arms C(on) and C(off), or for C(endpoint) alone.
    - C(qps) is responses a second; C(latency_mean), C(latency_p50) and C(latency_p99) are in seconds;
      C(bytes_per_second) counts both directions; C(redirected_share) is the share of the bytes, 0 to 1,
      that did not go through TCP.
  returned: success
  type: dict
  sample: {"on": {"qps": 52000.0, "latency_p50": 0.000019}, "off": {"qps": 40000.0, "latency_p50": 0.000025}}
ratio:
  description: C(on) divided by C(off), for each figure but C(redirected_share).
  returned: success, where O(cgroup) is given
  type: dict
  sample: {"qps": 1.3, "latency_p50": 0.76}
redirected:
  description: Whether the arm C(on), or the one arm, was accelerated.
  returned: success
  type: bool
counters:
  description:
    - What sockops counted for the cgroup during the C(on) runs, other traffic of it included. Every reason
      to stay on TCP has its own counter.
    - Null where sockops does not act on the cgroup.
  returned: success
  type: dict
  sample: {"connections_paired": 2, "redirected_messages": 8000}
runs:
  description: The figures of each run, in order.
  returned: success
  type: list
  elements: dict
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.accelerators.sockops.service import Sockops
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.probe import Counters, Settings, measure, sockops_counters
from ansible.module_utils.meshaccel.report import telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "address": {"type": "str"},
    "port": {"type": "int"},
    "cgroup": {"type": "str"},
    "request": {"type": "str"},
    "response": {"type": "str"},
    "message_bytes": {"type": "int", "default": 1024},
    "connections": {"type": "int", "default": 1},
    "messages": {"type": "int", "default": 2000},
    "duration": {"type": "float", "default": 10},
    "pairs": {"type": "int", "default": 2},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_together=[("address", "port")],
        required_one_of=[("address", "cgroup")],
        required_by={"response": "request"},
        supports_check_mode=True,
    )
    with telling_errors(module):
        settings = Settings.parse(module.params)
        report = measure(settings, counters=counters_of(settings.cgroup))
    module.exit_json(changed=False, **report)


def counters_of(cgroup: str | None) -> Counters | None:
    """Returns what reads sockops' counters for a cgroup, or None without one."""
    if cgroup is None:
        return None
    return partial(sockops_counters, Sockops.on_this_node(NodePaths()), cgroup)


if __name__ == "__main__":
    main()
