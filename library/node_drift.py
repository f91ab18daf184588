#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the whole node compared with its inventory by the code that is on it already."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_drift
short_description: Compare a node with what it should have, by the node's own code
version_added: "0.1.0"
description:
  - Does what M(node_plan) does, with the package that M(node_runtime) has installed on the
    node, so that little is sent to a node that is as wished.
  - Uses that package only when its files have the digest that is wished. Otherwise it plans
    nothing, and M(node_plan) has to.
  - Changes nothing, whether in check mode or not.
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
    description: Shows the whole node before and after, if it planned.
    support: full
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Compare each node with its inventory, where it has the code for that
  node_drift:
    node_runtime:
      digest: "{{ (lookup('ansible.builtin.file', 'build/node_release.json') | from_json).digest }}"
    sockops:
      cgroups: [kubepods.slice]
  register: drift
"""

RETURN = r"""
planned:
  description: Whether the node has the code that is wished. If not, nothing was looked at.
  returned: always
  type: bool
roles:
  description: The roles that have something to do, in the order to run them.
  returned: always
  type: list
  elements: str
  sample: [preflight, sockops]
drift:
  description: What each part that is not as wished needs, in words.
  returned: always
  type: dict
  sample: {"sockops": ["switch sockops on"]}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.installed import plan_node
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
    if plan is None:
        module.exit_json(changed=False, planned=False, roles=[], drift={})
    module.exit_json(
        changed=False,
        planned=True,
        roles=plan.roles,
        drift=plan.drift,
        diff=difference(plan.before, plan.after),
    )


if __name__ == "__main__":
    main()
