# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads the node: every TCP connection, its ends, their programs and cgroups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .... import holds
from ....errors import InvalidInput
from ....model import Mode
from ....paths import NodePaths, sibling_object
from ....system import cgroups, files
from .. import NAME, inspection
from ..denials import executables
from ..desired import load_document
from ..inspection.reading import inspect, namespaces_of_everyone
from ..inspection.sockets import InspectedSocket, Pair, pairs
from ..membership import innermost
from ..observe import Loaded, Places, kept_loader, observe_loaded
from . import programs
from .decision import explain
from .model import Connection, End, Explanation, Switches


@dataclass(frozen=True)
class Choice:
    """Which connections to explain: those of the process or port with this number, or all (None)."""

    number: int | None = None

    def takes(self, connection: Connection) -> bool:
        """Whether a connection is meant."""
        return self.number is None or any(self._takes_end(end) for end in connection.ends)

    def _takes_end(self, end: End) -> bool:
        if self.number in (end.socket.local.port, end.socket.remote.port):
            return True
        return any(program.process_id == self.number for program in end.programs)


def explanations(
    paths: NodePaths, hierarchy: cgroups.Hierarchy, object_path: str, choice: Choice
) -> list[Explanation]:
    """Explains the node's connections, sorted by their addresses.

    ``object_path`` is the accelerator's object, beside which the inspection's
    lies. Every network namespace is looked into, since a peer may be in any.
    Raises InvalidInput when sockops is not loaded, Unsupported when the kernel
    does not take the inspection.
    """
    places = Places.of(paths)
    loaded = observe_loaded(places, hierarchy, {})
    if loaded is None or not loaded.usable:
        raise InvalidInput(
            wanted="sockops loaded, to explain its connections",
            found="it is not, so all traffic is on the kernel's path",
            remedy="run `meshaccel restore` or the playbook",
        )
    sockets = inspect(
        places,
        sibling_object(object_path, inspection.NAME),
        kept_loader(paths),
        namespaces_of_everyone(),
    )
    found = connections(sockets, loaded, hierarchy)
    switches = read_switches(loaded, paths, hierarchy)
    return [explain(each, switches) for each in found if choice.takes(each)]


def read_switches(loaded: Loaded, paths: NodePaths, hierarchy: cgroups.Hierarchy) -> Switches:
    """Returns the live modes and by whom they are so; raises InvalidInput when a file of ours is damaged."""
    hold = holds.read(paths, NAME)
    return Switches(loaded.mode, hold.mode, hold.cgroups, denied_cgroups(loaded, paths, hierarchy))


def denied_cgroups(loaded: Loaded, paths: NodePaths, hierarchy: cgroups.Hierarchy) -> dict[str, str]:
    """Returns the cgroups that are off and have a process of a denied executable, with that process."""
    content = files.read(paths.desired(NAME))
    if content is None:
        return {}
    denied = load_document(content, paths.desired(NAME)).denials.executables
    off = [entry.path for entry in loaded.attachments if entry.path is not None and entry.mode is Mode.OFF]
    return {
        found.cgroup: f"{found.executable} (process {found.process_id})"
        for found in executables.find(denied, off, hierarchy)
    }


def connections(
    sockets: list[InspectedSocket], loaded: Loaded, hierarchy: cgroups.Hierarchy
) -> list[Connection]:
    """Joins sockets to connections and says of each end whose it is."""
    owners = programs.owners(each.inode for each in sockets if each.inode)
    cgroup_paths = hierarchy.paths_of(each.cgroup_id for each in sockets)
    by_path = {entry.path: entry for entry in loaded.attachments if entry.path is not None and entry.attached}

    def end(socket: InspectedSocket) -> End:
        path = cgroup_paths.get(socket.cgroup_id)
        policy = None if path is None else innermost(path, by_path)
        return End(socket, path, policy, owners.get(socket.inode, ()))

    joined = pairs(sockets)
    alone = unpaired(sockets, joined)
    opposite = opposites(alone)
    found = [Connection(end(pair.client), end(pair.server)) for pair in joined]
    found += [Connection(end(each), None, each.cookie in opposite) for each in alone]
    return sorted(found, key=lambda each: (each.near.socket.local, each.near.socket.remote))


def unpaired(sockets: Iterable[InspectedSocket], joined: Iterable[Pair]) -> list[InspectedSocket]:
    """Returns the sockets whose other end is not among them."""
    paired = {end.cookie for pair in joined for end in (pair.client, pair.server)}
    return [each for each in sockets if each.cookie not in paired]


def opposites(alone: Iterable[InspectedSocket]) -> set[int]:
    """Returns the cookies of sockets of which one other has the same addresses the other way round.

    Only one: pods may use the same addresses, and then nothing is known.
    """
    sockets = list(alone)
    count = Counter((each.local, each.remote) for each in sockets)
    return {
        each.cookie
        for each in sockets
        if count[(each.remote, each.local)] == 1 == count[(each.local, each.remote)]
        and each.local != each.remote
    }
