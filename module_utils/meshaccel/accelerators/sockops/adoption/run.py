# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries an adoption out: passes of the iterator until every connection is taken over or given up."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ....bpf import attach, layouts, maps
from ....bpf.loaders import Loader
from ....bpf.objects import BpfObject
from ....bpf.ownership import opened
from ....system import network_namespaces
from .. import layout as sockops_layout
from ..observe import Places
from . import layout
from .plan import Candidates, End

PASS_PAUSE_SECONDS = 0.1
#: Sockets whose threads sleep in TCP's own calls for longer stay on TCP.
PATIENCE_SECONDS = 5.0
#: For each socket, so many threads on average may sleep in calls on it.
SLEEPERS_PER_SOCKET = 2
UNDER_WAY = frozenset({layout.Step.INSERTED, layout.Step.READY})

Adoptions = maps.Map[ctypes.c_uint64, layout.Adoption]
Sockets = maps.Map[ctypes.c_uint64, ctypes.c_uint64]


@dataclass(frozen=True)
class Report:
    """What became of the live connections of the opted-in cgroups."""

    adopted: int
    #: Connections that could have been adopted: both ends here, opted in, usable.
    candidates: int
    #: Sockets left on TCP, by reason.
    left: Mapping[str, int]

    def __str__(self) -> str:
        reasons = "; ".join(f"{count} sockets: {reason}" for reason, count in sorted(self.left.items()))
        share = f"adopted {self.adopted} of {self.candidates} live connections within this node"
        return f"{share}; left on TCP: {reasons}" if reasons else share


def adopt(
    object_path: str, loader: Loader, places: Places, candidates: Candidates, namespaces: Sequence[str]
) -> Report:
    """Adopts connections, in all network namespaces; takes half a second, at most some five.

    ``namespaces`` are paths that open to namespaces. A connection whose
    threads do not leave TCP's own calls in time is given back untouched. Raises
    BpfError when the kernel refuses the object or an iterator.
    """
    ends = [end for connection in candidates.connections for end in connection]
    if not ends:
        return Report(0, 0, candidates.left)
    with adoption_object(object_path, loader, places, len(ends)) as loaded:
        program = loaded.program_descriptor(layout.PROGRAM)
        adoptions = maps.Map(loaded.map_descriptor("adoptions"), ctypes.c_uint64, layout.Adoption)
        sockets = maps.Map(loaded.map_descriptor("sockets"), ctypes.c_uint64, ctypes.c_uint64)
        for one, other in candidates.connections:
            plan_end(adoptions, one, other)
            plan_end(adoptions, other, one)
        deadline = time.monotonic() + PATIENCE_SECONDS
        pass_over(program, namespaces)
        while unfinished(adoptions, sockets, ends) and time.monotonic() < deadline:
            time.sleep(PASS_PAUSE_SECONDS)
            pass_over(program, namespaces)
        withdraw(adoptions, candidates.connections)
        pass_over(program, namespaces)
        return report(adoptions, candidates)


@contextlib.contextmanager
def adoption_object(path: str, loader: Loader, places: Places, sockets: int) -> Iterator[BpfObject]:
    """Loads the iterator on the maps of the sockops that is loaded, for so many sockets."""
    layouts.check(path, layout.STRUCTURES)
    with loader.open(path) as candidate, contextlib.ExitStack() as pins:
        for name in sockops_layout.MAP_SIZES:
            if name in candidate.map_names():
                candidate.reuse_map(name, pins.enter_context(opened(places.map(name))))
        candidate.set_maximum_entries("adoptions", sockets)
        candidate.set_maximum_entries("early_sleepers", sockets * SLEEPERS_PER_SOCKET)
        candidate.load()
        yield candidate


def plan_end(adoptions: Adoptions, end: End, peer: End) -> None:
    """Tells the iterator of one socket."""
    adoptions.write(
        ctypes.c_uint64(end.cookie),
        layout.Adoption(
            peer_cookie=peer.cookie,
            peer_socket=peer.address,
            handshake=sockops_layout.Handshake(end.handshake.receive_sequence, end.handshake.send_sequence),
            policy=end.policy,
            peer_policy=peer.policy,
            step=layout.Step.PLANNED,
        ),
    )


def pass_over(program: int, namespaces: Iterable[str]) -> None:
    """Runs the iterator once in every namespace; one that is gone is left out."""
    for path in namespaces:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            network_namespaces.entered(path),
        ):
            attach.run_iterator(program)


def unfinished(adoptions: Adoptions, sockets: Sockets, ends: Iterable[End]) -> bool:
    """True while a socket that is still open can get further."""
    return any(
        step_of(adoptions, end) in UNDER_WAY and sockets.read(ctypes.c_uint64(end.cookie)) is not None
        for end in ends
    )


def step_of(adoptions: Adoptions, end: End) -> layout.Step:
    """Returns how far a socket is."""
    found = adoptions.read(ctypes.c_uint64(end.cookie))
    return layout.Step.REFUSED if found is None else layout.Step(found.step)


def withdraw(adoptions: Adoptions, connections: Iterable[tuple[End, End]]) -> None:
    """Marks the connections of which neither end redirects, to be given back."""
    for connection in connections:
        steps = [step_of(adoptions, end) for end in connection]
        if layout.Step.PAIRED in steps:
            continue
        for end, step in zip(connection, steps):
            if step in UNDER_WAY:
                mark(adoptions, end, layout.Step.WITHDRAW)


def mark(adoptions: Adoptions, end: End, step: layout.Step) -> None:
    """Sets how far a socket is."""
    key = ctypes.c_uint64(end.cookie)
    found = adoptions.read(key)
    if found is not None:
        found.step = step
        adoptions.write(key, found)


def report(adoptions: Adoptions, candidates: Candidates) -> Report:
    """Counts what became of the connections."""
    left = Counter(candidates.left)
    adopted = 0
    for connection in candidates.connections:
        steps = {step_of(adoptions, end) for end in connection}
        if steps == {layout.Step.PAIRED}:
            adopted += 1
        elif layout.Step.WITHDRAWN in steps and layout.Step.REFUSED not in steps:
            left["a thread waits in a call that began before"] += len(connection)
        else:
            left["closed meanwhile, or refused by the kernel"] += len(connection)
    return Report(adopted, len(candidates.connections), dict(left))
