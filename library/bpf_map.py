#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the entries of a pinned BPF map."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bpf_map
short_description: Declare the entries of a pinned BPF map
version_added: "0.1.0"
description:
  - Makes entries of a map that is pinned below the directory of meshaccel in bpffs what they
    should be, one write for each that differs. Other entries stay, unless O(purge) is set.
  - For hash, LRU hash and array maps. Per-CPU maps are refused, only programs write those.
  - Meant for maps that programs read. An entry that a program changes again meanwhile makes
    the run fail and be undone.
options:
  state:
    description: Whether the entries are in the map. An array's entries are always there.
    type: str
    choices: [present, absent]
    default: present
  pin:
    description:
      - The name of the pin, relative to C(/sys/fs/bpf/meshaccel), such as C(count_maps/by_port).
    type: str
    required: true
  entries:
    description:
      - The entries, each with C(key) and, with O(state=present), C(value).
      - An integer is written in the size of the map's keys or values and the byte order of
        the node. A string is hexadecimal digits for exactly that size, with or without
        spaces between bytes, in the order in memory.
    type: list
    elements: dict
    default: []
  purge:
    description: Whether other entries are removed. Not for arrays, nor with O(state=absent).
    type: bool
    default: false
extends_documentation_fragment: []
attributes:
  check_mode:
    description: Plans exactly what a run would do, and changes nothing. The map has to be there.
    support: full
  diff_mode:
    description: Shows the entries before and after, keys and values in hexadecimal digits.
    support: full
requirements:
  - libbpf 0.5 or newer
seealso:
  - module: bpf_program
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Limit connections of two ports and of no other
  bpf_map:
    pin: limit_maps/by_port
    entries:
      - key: 8080
        value: 1000
      - key: 8443
        value: "e8 03 00 00"
    purge: true

- name: Lift one limit
  bpf_map:
    pin: limit_maps/by_port
    state: absent
    entries:
      - key: 8080
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "bpf_map.write", "summary": "write 90 1f = e8 03 00 00 to limit_maps/by_port"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.bpf.declared import converge
from ansible.module_utils.meshaccel.bpf.entries import PinnedEntries
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, object]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "pin": {"type": "str", "required": True},
    "entries": {"type": "list", "elements": "dict", "default": []},
    "purge": {"type": "bool", "default": False},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    paths = NodePaths()
    with telling_errors(module):
        result = converge(PinnedEntries.parse(module.params, paths), paths, check_mode=module.check_mode)
    succeed(module, result)


if __name__ == "__main__":
    main()
