#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the whole node compared with its inventory, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_plan
short_description: Compare a node with what it should have
version_added: "0.1.0"
description:
  - Validates what the inventory wishes of a node, observes the node and plans.
    Changes nothing, whether in check mode or not.
  - Names the roles that have something to do, in order. On a node that is as wished there
    are none, and this call is the whole run.
options:
  node_runtime:
    description: What the node's runtime should be, as the options of M(node_runtime).
    type: dict
  sockops:
    description: What sockops should be, as the options of M(sockops).
    type: dict
  ipvs_service:
    description: What the services of IPVS should be, as the options of M(ipvs_service).
    type: dict
  ipvs_bpf:
    description: What ipvs_bpf should be, as the options of M(ipvs_bpf).
    type: dict
extends_documentation_fragment: []
attributes:
  check_mode:
    description: The module never changes anything.
    support: full
  diff_mode:
    description: Shows the whole node before and after.
    support: full
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Compare each node with its inventory
  node_plan:
    sockops:
      cgroups: [kubepods.slice]
  register: plan
"""

RETURN = r"""
roles:
  description: The roles that have something to do, in the order to run them.
  returned: always
  type: list
  elements: str
  sample: [preflight, node_runtime, sockops]
drift:
  description: What each part that is not as wished needs, in words.
  returned: always
  type: dict
  sample: {"sockops": ["switch sockops on"]}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.node import plan_node
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import difference, telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "node_runtime": {"type": "dict"},
    "sockops": {"type": "dict"},
    "ipvs_service": {"type": "dict"},
    "ipvs_bpf": {"type": "dict"},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    with telling_errors(module):
        plan = plan_node(module.params, NodePaths())
    module.exit_json(
        changed=False,
        roles=plan.roles,
        drift=plan.drift,
        diff=difference(plan.before, plan.after),
    )


if __name__ == "__main__":
    main()
