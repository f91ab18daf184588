#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the meshaccel package, command and boot unit on one node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_runtime
short_description: Install the node's own part of meshaccel
version_added: "0.1.0"
description:
  - Installs the package, the BPF objects, the command C(meshaccel) and, where systemd is
    the init, the unit that restores the accelerators at boot.
  - A release is written beside the running one and swapped in by a rename.
options:
  state:
    description: Whether the runtime is on the node. Remove the accelerators first.
    type: str
    choices: [present, absent]
    default: present
  digest:
    description: The digest of the node release. Needed with O(state=present).
    type: str
  archive:
    description: The node release itself, as C(./run node-release) wrote it.
    type: str
  started_after:
    description:
      - Systemd units that start only after the accelerators are back at boot, beside those
        of kubelets, container runtimes and well-known sidecars, which always do.
    type: list
    elements: str
    default: []
extends_documentation_fragment: []
attributes:
  check_mode:
    description: Plans exactly what a run would do, and changes nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Install the release that was built on the controller
  node_runtime:
    digest: "{{ (lookup('ansible.builtin.file', 'build/node_release.json') | from_json).digest }}"
    archive: "{{ lookup('ansible.builtin.file', 'build/node_release.archive') }}"

- name: Remove it
  node_runtime:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "file.write", "summary": "write /usr/sbin/meshaccel"}]
libbpf:
  description: Whether the node has the library libbpf, which the accelerators need.
  returned: always
  type: bool
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel import record, runtime, runtime_service
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "digest": {"type": "str"},
    "archive": {"type": "str"},
    "started_after": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    paths = NodePaths()
    with telling_errors(module):
        desired = runtime.parse(module.params)
        run = partial(runtime_service.run, paths=paths)
        result = record.converge(paths, runtime.NAME, desired, run, check_mode=module.check_mode)
    succeed(module, result, libbpf=result.has_libbpf)


if __name__ == "__main__":
    main()
