#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: what a node's kernel can do, asked of the kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_capabilities
short_description: Probe what the kernel of a node can do
version_added: "0.1.0"
description:
  - Asks the kernel itself. Each map type is created, each program is given to the verifier, redirected
    bytes are really sent over loopback. No kernel configuration and no version is looked at.
  - Takes well under a second, leaves nothing behind and changes nothing, in check mode or not.
  - Fails only for what O(require) or O(accelerators) asks for and the node does not have.
options:
  require:
    description:
      - Names of capabilities that the node must have, from those in RV(capabilities).
      - One that could not be determined counts as lacking.
    type: list
    elements: str
    default: []
  accelerators:
    description:
      - Accelerators whose capabilities, all of them, the node must have. V(sockops_bcc) is sockops with
        its loader bcc, which does without BTF.
    type: list
    elements: str
    choices: [ipvs_bpf, sockops, sockops_bcc]
    default: []
extends_documentation_fragment: []
attributes:
  check_mode:
    description: The module never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
requirements:
  - root, for answers other than C(unknown)
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: See what the node can do
  node_capabilities:
  register: node

- name: Stop here unless sockops can run
  node_capabilities:
    accelerators: [sockops]

- name: Stop here unless redirected bytes count as the receiver's memory
  node_capabilities:
    require: [sockmap_receive_accounting]
"""

RETURN = r"""
capabilities:
  description:
    - V(yes), or V(no) or V(unknown) with a colon and the reason, for each capability by name.
    - Names that begin with C(map_) and C(program_) are types of maps and programs; those that begin with
      C(sock_ops_) and C(sk_msg_) are helpers and kernel functions in that type of program.
    - C(sockmap_receive_accounting) is whether redirected bytes are charged to the receiver.
  returned: always, unless O(require) names an unknown one
  type: dict
  sample: {"map_sockhash": "yes", "sk_msg_rdonly_cast": "no: load a program of type 16: Invalid argument"}
kernel:
  description: The release of the running kernel, for reading only.
  returned: always
  type: str
  sample: 6.1.0-32-amd64
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.capabilities import NEEDS, check_names, probe, require
from ansible.module_utils.meshaccel.errors import Unsupported
from ansible.module_utils.meshaccel.report import telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "require": {"type": "list", "elements": "str", "default": []},
    "accelerators": {"type": "list", "elements": "str", "choices": sorted(NEEDS), "default": []},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    with telling_errors(module):
        check_names(module.params["require"])
        found = probe()
    results = {
        "capabilities": {name: str(capability) for name, capability in found.items()},
        "kernel": os.uname().release,
    }
    try:
        for accelerator in module.params["accelerators"]:
            require(found, NEEDS[accelerator], accelerator)
        require(found, module.params["require"], "what this play requires")
    except Unsupported as error:
        module.fail_json(
            msg=str(error), wanted=error.wanted, found=error.found, remedy=error.remedy, **results
        )
    module.exit_json(changed=False, **results)


if __name__ == "__main__":
    main()
