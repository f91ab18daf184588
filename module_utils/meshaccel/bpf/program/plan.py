# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From wish and observation to actions. Pure: nothing is read, nothing changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ...errors import InvalidInput
from ...model import Action, Json, Plan
from ...paths import NodePaths
from .. import attach, ownership
from .desired import Desired, Places
from .loading import Candidate, shape
from .observe import Observed

#: Those of enum bpf_prog_type, include/uapi/linux/bpf.h, that attach to a cgroup by a link:
#: CGROUP_SKB, CGROUP_SOCK, SOCK_OPS, CGROUP_DEVICE, CGROUP_SOCK_ADDR, CGROUP_SYSCTL, CGROUP_SOCKOPT.
CGROUP_KINDS = frozenset({8, 9, 13, 15, 18, 23, 25})


def make_plan(desired: Desired, observed: Observed, places: Places, paths: NodePaths) -> Plan:
    """Returns the actions that make the program as wished; empty when it is. Pure.

    Raises InvalidInput when wish and object do not fit together, Unsupported when
    nothing can be pinned.
    """
    candidate = observed.candidate
    if candidate is None:
        return removal(observed, places, paths)
    check_cgroup_program(desired, candidate)
    check_reused(desired, observed, candidate)
    own = own_maps(desired, candidate)
    plan = list(ownership.mounting(observed.bpffs, paths))
    current = is_current(desired, observed, candidate)
    if not current:
        plan += replacing(desired, observed, places, own)
    plan += unpinning(places.map(name) for name in observed.map_pins if name not in own)
    plan += linking(observed, places, candidate, current=current)
    if places.staged in observed.pins:
        plan += unpinning([places.staged])
    return tuple(plan)


def own_maps(desired: Desired, candidate: Candidate) -> dict[str, attach.MapInformation]:
    """Returns the maps that are to be pinned beside the program."""
    if not desired.pin_maps:
        return {}
    return {name: entry for name, entry in candidate.maps.items() if name not in desired.reuse_maps}


def is_current(desired: Desired, observed: Observed, candidate: Candidate) -> bool:
    """True when the pinned program is the object's, with the wished maps."""
    pinned = observed.pinned
    if pinned is None or not pinned.same_code(candidate.facts):
        return False
    reused = {entry.identifier for entry in observed.reused.values()}
    made = [shape(entry) for name, entry in candidate.maps.items() if name not in desired.reuse_maps]
    found = [shape(entry) for entry in pinned.maps if entry.identifier not in reused]
    own = own_maps(desired, candidate)
    own_ids = {observed.map_pins[name].identifier for name in own if name in observed.map_pins}
    return (
        sorted(made, key=repr) == sorted(found, key=repr)
        and own.keys() <= observed.map_pins.keys()
        and own_ids <= pinned.map_ids
    )


def replacing(
    desired: Desired, observed: Observed, places: Places, own: Mapping[str, attach.MapInformation]
) -> Plan:
    """Loads the program and pins it; its maps go on where their shape is the same."""
    kept = [
        name for name, entry in observed.map_pins.items() if name in own and shape(entry) == shape(own[name])
    ]
    reuse = {name: places.map(name) for name in kept}
    reuse.update({name: os.path.join(places.root, pin) for name, pin in desired.reuse_maps.items()})
    source = desired.source
    load = Action(
        "bpf_program.load",
        f"load {source.program} of {source.object_path}",
        {
            "object": source.object_path,
            "program": source.program,
            "maximum_entries": {
                name: size for name, size in source.maximum_entries.items() if name not in kept
            },
            "constants": dict(source.constants),
            "reuse": reuse,
        },
    )
    program = pin_action(places.program, None, replaces=observed.pinned is not None)
    made = [
        pin_action(places.map(name), name, replaces=name in observed.map_pins)
        for name in own
        if name not in kept
    ]
    return (load, program, *made)


def pin_action(path: str, map_name: str | None, *, replaces: bool) -> Action:
    """Builds the pin of what was loaded: the program, or a map of it."""
    summary = f"pin {path}"
    if replaces:
        lost = "" if map_name is None else ", whose entries do not fit the new version"
        summary += f" in the place of the previous one{lost}"
    undo = restore_action(path) if replaces else unpin_action(path)
    return Action("bpf_program.pin", summary, {"path": path, "map": map_name}, (undo,))


def unpinning(pins: Iterable[str]) -> Plan:
    """Builds the removal of pins, each with its way back."""
    return tuple(unpin_action(path, (restore_action(path),)) for path in pins)


def unpin_action(path: str, undo: Plan = ()) -> Action:
    """Builds the removal of one pin."""
    return Action("bpf_program.unpin", f"unpin {path}", {"path": path}, undo)


def restore_action(path: str) -> Action:
    """Builds the return of what was at a pin before this run."""
    return Action("bpf_program.restore_pin", f"put back what was pinned at {path}", {"path": path})


def linking(observed: Observed, places: Places, candidate: Candidate, *, current: bool) -> Plan:
    """Attaches to cgroups that lack the program, swaps it where another runs, leaves the rest."""
    kept: dict[int, str] = {}
    leaving: list[str] = []
    for name, link in observed.links.items():
        wished = link.cgroup_id in observed.wished_cgroups and link.attach_type == candidate.attach_type
        if wished and link.cgroup_id not in kept:
            kept[link.cgroup_id] = name
        else:
            leaving.append(places.link(name))
    plan = list(unpinning(leaving))
    running = observed.pinned.identifier if observed.pinned and current else None
    for identifier, path in observed.wished_cgroups.items():
        if identifier not in kept:
            plan.append(attach_action(places, candidate, identifier, path))
        elif observed.links[kept[identifier]].program_id != running:
            plan.append(update_action(places.link(kept[identifier]), path, places))
    return tuple(plan)


def attach_action(places: Places, candidate: Candidate, identifier: int, path: str) -> Action:
    """Builds the attachment to one cgroup."""
    link = places.link(identifier)
    return Action(
        "bpf_program.attach",
        f"attach to cgroup {path}",
        {"cgroup": path, "attach_type": candidate.attach_type, "program": places.program, "link": link},
        (unpin_action(link),),
    )


def update_action(link: str, path: str, places: Places) -> Action:
    """Builds the swap of the program that runs in a cgroup."""
    undo = Action(
        "bpf_program.restore_link", f"put the program back that ran in cgroup {path}", {"link": link}
    )
    arguments = {"link": link, "program": places.program}
    return Action("bpf_program.update_link", f"swap the program in cgroup {path}", arguments, (undo,))


def removal(observed: Observed, places: Places, paths: NodePaths) -> Plan:
    """Removes links, program and maps, in this order, and our mount when it is empty then."""
    pins = [places.link(name) for name in observed.links]
    if observed.pinned is not None:
        pins.append(places.program)
    pins += [places.map(name) for name in observed.map_pins]
    if places.staged in observed.pins:
        pins.append(places.staged)
    last = observed.pins <= set(pins)
    return unpinning(pins) + (ownership.unmounting(observed.bpffs, paths) if last else ())


def check_cgroup_program(desired: Desired, candidate: Candidate) -> None:
    """Raises InvalidInput when cgroups are wished for a program that attaches to none."""
    if desired.cgroups and candidate.facts.kind not in CGROUP_KINDS:
        raise InvalidInput(
            wanted=f"{desired.source.program} attached to cgroups",
            found=f"a program of type {candidate.facts.kind}, which does not attach to cgroups",
            remedy="leave cgroups out, or name a program of a section such as sockops or cgroup_skb/egress",
        )


def check_reused(desired: Desired, observed: Observed, candidate: Candidate) -> None:
    """Raises InvalidInput when a map to reuse is not one of the program's, or of another shape."""
    for name, pin in desired.reuse_maps.items():
        declared, found = candidate.maps.get(name), observed.reused[name]
        if declared is None:
            raise InvalidInput(
                wanted=f"the map {name}, used by {desired.source.program}",
                found=f"no such map; there are: {ownership.near(name, candidate.maps)}",
                remedy="correct the name in reuse_maps",
            )
        if sizes(declared) != sizes(found):
            raise InvalidInput(
                wanted=f"a map like {name} of {desired.source.object_path}: {words(declared)}",
                found=f"{pin}: {words(found)}",
                remedy="name another pin, or remove that one first",
            )


def sizes(entry: attach.MapInformation) -> tuple[int, int, int]:
    """Returns what has to agree for a program to use a map."""
    return entry.kind, entry.key_size, entry.value_size


def words(entry: attach.MapInformation) -> str:
    """Returns what has to agree, for the error."""
    return f"type {entry.kind}, key {entry.key_size} and value {entry.value_size} bytes"


def describe(desired: Desired, observed: Observed) -> dict[str, Json]:
    """Returns the state a plan leads to, in the words of describe_observed()."""
    candidate = observed.candidate
    if candidate is None:
        return {"state": "absent"}
    return {
        "state": "present",
        "tag": candidate.facts.tag,
        "constants": candidate.facts.constants,
        "cgroups": sorted(observed.wished_cgroups.values()),
        "maps": {name: entry.maximum_entries for name, entry in own_maps(desired, candidate).items()},
        "reused_maps": dict(desired.reuse_maps),
    }


def describe_observed(desired: Desired, observed: Observed) -> dict[str, Json]:
    """Returns what was observed, for the diff. Only what an operator can wish for."""
    pinned = observed.pinned
    if pinned is None:
        leftovers = observed.links or observed.map_pins
        return {"state": "incomplete" if leftovers else "absent"}
    return {
        "state": "present",
        "tag": pinned.tag,
        "constants": pinned.constants,
        "cgroups": sorted(
            observed.linked_cgroups.get(link.cgroup_id, "gone")
            for link in observed.links.values()
            if link.program_id == pinned.identifier
        ),
        "maps": {
            name: entry.maximum_entries
            for name, entry in observed.map_pins.items()
            if entry.identifier in pinned.map_ids
        },
        "reused_maps": {
            name: pin
            for name, pin in desired.reuse_maps.items()
            if observed.reused[name].identifier in pinned.map_ids
        },
    }
