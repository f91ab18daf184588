# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes of a pinned program: parsed and validated, nothing touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import InvalidInput
from ...model import Json
from ...paths import NodePaths
from .. import ownership
from .loading import Source

#: Top-level names below the pins directory that an accelerator keeps for itself.
ACCELERATORS = frozenset({"sockops"})
#: Where a pin is made that is then renamed over the one it replaces.
STAGED = "staged"
MAPS_SUFFIX = "_maps"
LINKS_SUFFIX = "_links"
#: max_entries of union bpf_attr is 32 bits wide.
MAP_SIZES = range(1, 1 << 32)
CONSTANTS = range(1 << 64)


@dataclass(frozen=True)
class Desired:
    """The wish. ``reuse_maps`` is {map of the object: pin of ours}; cgroups are paths."""

    present: bool
    pin: str
    source: Source = field(default_factory=lambda: Source("", ""))
    cgroups: tuple[str, ...] = ()
    reuse_maps: Mapping[str, str] = field(default_factory=dict)
    pin_maps: bool = True


@dataclass(frozen=True)
class Places:
    """Where one program keeps its pins."""

    root: str
    pin: str

    @classmethod
    def of(cls, desired: Desired, paths: NodePaths) -> Places:
        """Returns the places of a wish in an installation."""
        return cls(paths.pins, desired.pin)

    @property
    def program(self) -> str:
        """The pin of the program itself."""
        return os.path.join(self.root, self.pin)

    @property
    def staged(self) -> str:
        """Where a new pin waits for its rename; one for all, under the node's lock."""
        return os.path.join(self.root, STAGED)

    @property
    def maps(self) -> str:
        """The directory of the program's own maps."""
        return self.program + MAPS_SUFFIX

    @property
    def links(self) -> str:
        """The directory of the links to cgroups."""
        return self.program + LINKS_SUFFIX

    def map(self, name: str) -> str:
        """The pin of a map of its own."""
        return os.path.join(self.maps, name)

    def link(self, name: object) -> str:
        """The pin of a link, named by cgroup id."""
        return os.path.join(self.links, str(name))


def parse(raw: Mapping[str, Json], paths: NodePaths) -> Desired:
    """Parses the module's options; raises InvalidInput for the first thing that is wrong."""
    pin = ownership.pin_name(paths, str(raw["pin"]))
    check_name(pin)
    if raw["state"] == "absent":
        return Desired(present=False, pin=pin)
    object_path, program = str(raw.get("object") or ""), str(raw.get("program") or "")
    if not object_path.startswith("/") or not program:
        raise InvalidInput(
            wanted="object, an absolute path on the node, and program, a name in it",
            found=f"object {object_path!r}, program {program!r}",
            remedy="give both, or state absent",
        )
    reused = raw.get("reuse_maps") or {}
    reuse = {name: ownership.pin_name(paths, str(pinned)) for name, pinned in reused.items()}
    sizes = integers(raw, "maximum_entries", MAP_SIZES)
    check_reuse(pin, reuse, sizes)
    source = Source(object_path, program, sizes, integers(raw, "constants", CONSTANTS))
    cgroups = tuple(str(path) for path in raw.get("cgroups") or [])
    return Desired(True, pin, source, cgroups, reuse, bool(raw.get("pin_maps", True)))


def check_name(pin: str) -> None:
    """Raises InvalidInput for a name that is somebody else's below our directory."""
    first = pin.split("/", maxsplit=1)[0]
    if first in ACCELERATORS or pin == STAGED:
        raise InvalidInput(
            wanted="a pin that no other part of meshaccel uses",
            found=repr(pin),
            remedy=f"choose another name; kept are {', '.join(sorted({STAGED, *ACCELERATORS}))}",
        )


def check_reuse(pin: str, reuse: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Raises InvalidInput for a map that cannot be reused as wished."""
    for name, reused in reuse.items():
        if reused.startswith(f"{pin}{MAPS_SUFFIX}/"):
            raise InvalidInput(
                wanted="reuse_maps only for maps that another program pinned",
                found=f"{name}: {reused!r}, its own",
                remedy="leave it out: a new version goes on with its own maps",
            )
        if name in sizes:
            raise InvalidInput(
                wanted="maximum_entries only for maps that are made",
                found=f"{name}, which reuse_maps names too",
                remedy="leave it out of one of them: a map that is reused keeps its size",
            )


def integers(raw: Mapping[str, Json], key: str, allowed: range) -> dict[str, int]:
    """Returns a dictionary of integers; raises InvalidInput for anything else."""
    found = raw.get(key) or {}
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise InvalidInput(
                wanted=f"{key} of {name}: an integer from {allowed.start} to {allowed.stop - 1}",
                found=repr(value),
                remedy="correct the value",
            )
    return dict(found)
