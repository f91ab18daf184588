#!/usr/bin/python
# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one BPF program, loaded, pinned and attached to cgroups."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bpf_program
short_description: Load and pin one BPF program, and attach it to cgroups
version_added: "0.1.0"
description:
  - Loads one program of a BPF object file that is on the node, pins it below the directory
    of meshaccel in bpffs, and attaches it to cgroups by links that are pinned beside it.
  - It is as wished when the kernel's tag of the pinned program, its constants and the shapes
    of its maps are those of the object's program, and the links run it in exactly the named
    cgroups. To know them the object is loaded for a moment, in check mode too.
  - A new version is swapped in each link with no moment unattached. Maps of the same shape
    go on with their entries; others are made anew.
  - Only what is pinned below the directory of meshaccel is changed or removed.
options:
  state:
    description:
      - Whether the program is on the node. V(absent) removes its pin, its links and its
        maps, and nothing else.
    type: str
    choices: [present, absent]
    default: present
  pin:
    description:
      - The name of the pin, relative to C(/sys/fs/bpf/meshaccel); directories are made.
      - The maps are pinned in C(PIN_maps/), the links in C(PIN_links/) under the id of
        their cgroup.
    type: str
    required: true
  object:
    description: The BPF object file, an absolute path on the node. Needed with O(state=present).
    type: str
  program:
    description: The name of the program in the object. Needed with O(state=present).
    type: str
  cgroups:
    description:
      - The cgroups to attach to, each a path below the cgroup2 mount, absolute or relative
        to it. The program runs beside others there, and for descendants.
      - Where in a cgroup it attaches follows from its section, such as C(sockops).
    type: list
    elements: str
    default: []
  maximum_entries:
    description: Sizes of maps by name, where they are to differ from the object's.
    type: dict
    default: {}
  constants:
    description:
      - Values of C(const volatile) integers of the object by name. Another value is another
        version of the program.
    type: dict
    default: {}
  reuse_maps:
    description:
      - Maps of the object, by name, for which a pinned map is used instead of a new one;
        the value is the name of its pin.
    type: dict
    default: {}
  pin_maps:
    description:
      - Whether the maps that the program uses are pinned. Without, a new version starts
        with new maps.
    type: bool
    default: true
extends_documentation_fragment: []
attributes:
  check_mode:
    description: Plans exactly what a run would do, and changes nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
requirements:
  - Linux 5.7 or newer for links to cgroups
  - libbpf 0.6 or newer
seealso:
  - module: bpf_map
author:
  - meshaccel contributors
"""

EXAMPLES = r"""
- name: Count the connections of two services
  bpf_program:
    pin: count
    object: /opt/count/count.bpf.o
    program: count_connections
    cgroups:
      - system.slice/nginx.service
      - system.slice/redis.service
    maximum_entries:
      by_port: 4096
    constants:
      first_port: 1024

- name: A second program that reads what the first one writes
  bpf_program:
    pin: limit
    object: /opt/count/limit.bpf.o
    program: limit_connections
    cgroups: [system.slice/nginx.service]
    reuse_maps:
      by_port: count_maps/by_port

- name: Take it off the node
  bpf_program:
    pin: count
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "bpf_program.attach", "summary": "attach to cgroup system.slice/nginx.service"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.meshaccel.bpf.declared import converge
from ansible.module_utils.meshaccel.bpf.programs import PinnedProgram
from ansible.module_utils.meshaccel.paths import NodePaths
from ansible.module_utils.meshaccel.report import succeed, telling_errors

ARGUMENTS: dict[str, dict[str, object]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "pin": {"type": "str", "required": True},
    "object": {"type": "str"},
    "program": {"type": "str"},
    "cgroups": {"type": "list", "elements": "str", "default": []},
    "maximum_entries": {"type": "dict", "default": {}},
    "constants": {"type": "dict", "default": {}},
    "reuse_maps": {"type": "dict", "default": {}},
    "pin_maps": {"type": "bool", "default": True},
}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("object", "program"))],
        supports_check_mode=True,
    )
    paths = NodePaths()
    with telling_errors(module):
        result = converge(PinnedProgram.parse(module.params, paths), paths, check_mode=module.check_mode)
    succeed(module, result)


if __name__ == "__main__":
    main()
