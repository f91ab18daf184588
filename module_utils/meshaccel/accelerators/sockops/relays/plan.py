# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From the wished relays to actions. Pure: nothing is read, nothing changed.

A relay acts once it is written, so the programs are at their cgroups before;
and it is taken back, which is one write, before they leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....bpf.object_file import ObjectFile
from ....errors import Unsupported
from ....model import Action, Json, Plan
from .desired import Relay
from .observe import Loaded, Observed


@dataclass(frozen=True)
class Wish:
    """What the node is to have: the relays, and the named cgroups by id and path.

    ``known_paths`` has the paths of cgroups that are attached now as well.
    """

    relays: tuple[Relay, ...]
    cgroups: Mapping[int, str]
    known_paths: Mapping[int, str]
    maximum_connections: int


@dataclass(frozen=True)
class Changes:
    """``now`` makes the relays as wished; ``last`` throws away what only the way back needs."""

    now: Plan = ()
    last: Plan = ()


def make_changes(wish: Wish, observed: Observed) -> Changes:
    """Returns what makes the relays as wished, on an accelerator that is loaded.

    Raises Unsupported when the object is not installed.
    """
    loaded = observed.loaded
    if not wish.relays:
        return Changes(unloading(observed, wish))
    object_file = require_object(observed)
    plan: list[Action] = []
    last: list[Action] = []
    if loaded is not None and not loaded.usable:
        plan += unloading(observed, wish)
        loaded = None
    if loaded is None:
        plan.append(load(object_file, wish.maximum_connections))
        loaded = Loaded(usable=True, digest=object_file.digest)
    elif loaded.digest != object_file.digest:
        plan += updating(loaded, object_file)
        last = [discard(loaded.digest)]
    last += [discard(version) for version in loaded.stale_versions if version != object_file.digest]
    plan += leaving(loaded, wish)
    plan += joining(loaded, wish)
    plan += writing(loaded, wish.relays)
    return Changes(tuple(plan), tuple(last))


def unloading(observed: Observed, wish: Wish) -> Plan:
    """Takes the relays off; joined connections are their own servers' again."""
    if observed.loaded is None:
        return ()
    undo = reloading(observed.loaded, observed.object_file, wish)
    return (Action("sockops.relays_unload", "unload relays", {}, undo),)


def reloading(loaded: Loaded, object_file: ObjectFile | None, wish: Wish) -> Plan:
    """The way back of an unload: what was observed, where that can be."""
    if object_file is None or not loaded.usable or object_file.digest != loaded.digest:
        reason = f"the relays' version {loaded.digest or 'with missing pins'} cannot be loaded again"
        return (Action("sockops.cannot_reload", "load the relays' version before", {"reason": reason}),)
    return (
        load(object_file, wish.maximum_connections),
        *(step for identifier in sorted(loaded.cgroup_ids) for step in rejoining(identifier, wish)),
        *writing(Loaded(usable=True), loaded.relays),
    )


def rejoining(identifier: int, wish: Wish) -> Plan:
    """The way back of a detachment; none for a cgroup that is gone."""
    path = wish.known_paths.get(identifier)
    return () if path is None else (attach(identifier, path),)


def load(object_file: ObjectFile, maximum_connections: int) -> Action:
    """Builds the load of the object, beside the accelerator's maps, and its way back."""
    return Action(
        "sockops.relays_load",
        f"load relays {object_file}",
        {
            **object_file.arguments(),
            "maximum_connections": maximum_connections,
        },
        (Action("sockops.relays_unload", "unload relays"),),
    )


def updating(loaded: Loaded, object_file: ObjectFile) -> Plan:
    """Swaps every program for the new version's; joined connections included."""
    return (
        Action(
            "sockops.relays_load_programs",
            f"load relays {object_file} beside {loaded.digest}",
            object_file.arguments(),
            (discard(object_file.digest),),
        ),
        switch(object_file.digest, (switch(loaded.digest, ()),)),
    )


def switch(digest: str, undo: Plan) -> Action:
    """Builds the swap to a loaded version."""
    return Action("sockops.relays_switch", f"switch to relays {digest}", {"digest": digest}, undo)


def discard(digest: str) -> Action:
    """Builds the removal of a version's program pins."""
    return Action("sockops.relays_discard", f"discard relays {digest}", {"digest": digest}, tidies=True)


def leaving(loaded: Loaded, wish: Wish) -> Plan:
    """Detaches from cgroups that are no longer named."""
    gone = sorted((loaded.cgroup_ids | loaded.broken_cgroup_ids) - wish.cgroups.keys())
    return tuple(
        detach(identifier, wish.known_paths.get(identifier, "that is gone"), rejoining(identifier, wish))
        for identifier in gone
    )


def joining(loaded: Loaded, wish: Wish) -> Plan:
    """Attaches to the named cgroups that are not attached, or not wholly."""
    return tuple(
        attach(identifier, path)
        for identifier, path in wish.cgroups.items()
        if identifier not in loaded.cgroup_ids
    )


def attach(identifier: int, path: str) -> Action:
    """Builds the attachment of one cgroup and its way back."""
    return Action(
        "sockops.relays_attach",
        f"relays: join cgroup {path}",
        {"cgroup_id": identifier, "path": path},
        (detach(identifier, path),),
    )


def detach(identifier: int, path: str, undo: Plan = ()) -> Action:
    """Builds the detachment of one cgroup."""
    return Action("sockops.relays_detach", f"relays: leave cgroup {path}", {"cgroup_id": identifier}, undo)


def writing(loaded: Loaded, relays: tuple[Relay, ...]) -> Plan:
    """Writes the table of relays, if it differs."""
    if sorted(loaded.relays) == sorted(relays):
        return ()
    return (write(relays, (write(loaded.relays, ()),)),)


def write(relays: tuple[Relay, ...], undo: Plan) -> Action:
    """Builds the write of the table of relays; those that stay keep their connections."""
    ordered = sorted(relays)
    words = ", ".join(map(str, ordered)) or "none"
    arguments: dict[str, Json] = {"relays": [relay.as_dict() for relay in ordered]}
    return Action("sockops.relays_write", f"relays: {words}", arguments, undo)


def require_object(observed: Observed) -> ObjectFile:
    """Returns the object that is to run; raises Unsupported when it is not installed."""
    if observed.object_file is None:
        raise Unsupported(
            wanted="the BPF object of relays on the node",
            found="none installed",
            remedy="run the role node_runtime first (playbooks/site.yml does)",
        )
    return observed.object_file
