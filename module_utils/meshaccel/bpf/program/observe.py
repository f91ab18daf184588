# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What a declared program is on this node now. Reads, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...errors import InvalidInput
from ...paths import NodePaths
from ...system import cgroups
from .. import attach, ownership
from ..ownership import Kind
from .desired import Desired, Places
from .loading import Candidate, ProgramFacts, candidate, program_facts


@dataclass(frozen=True)
class Observed:
    """Everything a plan depends on. ``candidate`` is None when nothing is to be loaded."""

    bpffs: ownership.Bpffs
    #: The absolute paths of all pins of ours, other programs' too.
    pins: frozenset[str] = frozenset()
    pinned: ProgramFacts | None = None
    map_pins: Mapping[str, attach.MapInformation] = field(default_factory=dict)
    links: Mapping[str, attach.LinkInformation] = field(default_factory=dict)
    candidate: Candidate | None = None
    #: By name in the object: the maps that the wish names for reuse.
    reused: Mapping[str, attach.MapInformation] = field(default_factory=dict)
    #: The wished cgroups by id, and those that links are attached to.
    wished_cgroups: Mapping[int, str] = field(default_factory=dict)
    linked_cgroups: Mapping[int, str] = field(default_factory=dict)


def observe(desired: Desired, places: Places, paths: NodePaths) -> Observed:
    """Reads pins, links and cgroups, and loads the object's program for a moment to know it.

    Raises InvalidInput, NotOurs or Unsupported when something stands in the way.
    """
    bpffs = ownership.observe_bpffs(paths)
    links = observe_links(places, paths) if bpffs.mounted else {}
    wished = resolve_cgroups(desired.cgroups)
    return Observed(
        bpffs=bpffs,
        pins=frozenset(os.path.join(paths.pins, name) for name in ownership.names(paths)),
        pinned=observe_program(places, paths) if bpffs.mounted else None,
        map_pins=observe_maps(places, paths) if bpffs.mounted else {},
        links=links,
        candidate=candidate(desired.source) if desired.present else None,
        reused={name: reused_map(pin, paths) for name, pin in desired.reuse_maps.items()},
        wished_cgroups=wished,
        linked_cgroups=linked_cgroups(links.values(), wished),
    )


def observe_program(places: Places, paths: NodePaths) -> ProgramFacts | None:
    """Returns what is pinned at the program's place; None when nothing is."""
    descriptor = ownership.open_ours(paths, places.program, Kind.PROGRAM)
    if descriptor is None:
        return None
    try:
        return program_facts(descriptor)
    finally:
        os.close(descriptor)


def observe_maps(places: Places, paths: NodePaths) -> dict[str, attach.MapInformation]:
    """Returns the maps pinned beside the program, by name."""
    found = {
        name: pinned_map(places.map(name), paths) for name in directory_of_ours(places.maps, paths, Kind.MAP)
    }
    return {name: entry for name, entry in found.items() if entry is not None}


def observe_links(places: Places, paths: NodePaths) -> dict[str, attach.LinkInformation]:
    """Returns the links pinned beside the program, by the name of their pin."""
    found: dict[str, attach.LinkInformation] = {}
    for name in directory_of_ours(places.links, paths, Kind.LINK):
        descriptor = ownership.open_ours(paths, places.link(name), Kind.LINK)
        if descriptor is None:
            continue
        try:
            found[name] = attach.link_information(descriptor)
        finally:
            os.close(descriptor)
    return found


def directory_of_ours(path: str, paths: NodePaths, kind: Kind) -> tuple[str, ...]:
    """Returns the names in a directory beside the program.

    Raises NotOurs when a pin or a symlink stands in the directory's place.
    """
    ownership.refuse_symlinks(paths, path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ownership.of_another_kind(f"{path}/", kind, "a pin in the place of the directory")
    return ownership.entries_of(path)


def pinned_map(path: str, paths: NodePaths) -> attach.MapInformation | None:
    """Returns what a pinned map is; None when nothing is pinned there."""
    descriptor = ownership.open_ours(paths, path, Kind.MAP)
    if descriptor is None:
        return None
    try:
        return attach.map_information(descriptor)
    finally:
        os.close(descriptor)


def reused_map(pin: str, paths: NodePaths) -> attach.MapInformation:
    """Returns what a map to reuse is; raises InvalidInput when it is not there."""
    found = pinned_map(os.path.join(paths.pins, pin), paths)
    if found is None:
        raise ownership.missing_pin(paths, pin, Kind.MAP)
    return found


def resolve_cgroups(wished: tuple[str, ...]) -> dict[int, str]:
    """Returns the wished cgroups by id, their paths relative to the cgroup2 mount.

    Raises InvalidInput for one that is not there or is named twice.
    """
    if not wished:
        return {}
    hierarchy = cgroups.hierarchy()
    found: dict[int, str] = {}
    for path in wished:
        identifier = hierarchy.identify(path)
        if identifier is None:
            raise missing_cgroup(path, hierarchy)
        if identifier in found:
            raise InvalidInput(
                wanted="each cgroup once", found=f"{path!r} a second time", remedy="name it once in cgroups"
            )
        found[identifier] = hierarchy.relative(path)
    return found


def linked_cgroups(links: Iterable[attach.LinkInformation], wished: Mapping[int, str]) -> dict[int, str]:
    """Returns the paths of the cgroups that links are attached to."""
    attached = {link.cgroup_id for link in links if link.cgroup_id}
    found = {identifier: path for identifier, path in wished.items() if identifier in attached}
    unknown = attached - found.keys()
    if unknown:
        found.update(cgroups.hierarchy().paths_of(unknown))
    return found


def missing_cgroup(path: str, hierarchy: cgroups.Hierarchy) -> InvalidInput:
    """Builds the error for a cgroup that is not there, naming those that are like it."""
    parent, name = os.path.split(hierarchy.absolute(path))
    siblings = [entry for entry in ownership.entries_of(parent) if os.path.isdir(os.path.join(parent, entry))]
    return InvalidInput(
        wanted=f"the cgroup {path}",
        found=f"no such cgroup; in {hierarchy.relative(parent)}: {ownership.near(name, siblings)}",
        remedy="start what runs in it first, or name its parent cgroup",
    )
