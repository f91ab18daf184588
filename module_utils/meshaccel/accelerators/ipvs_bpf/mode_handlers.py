# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what mode_plan.py plans: writes the mode, observes, reserves, drains."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping

from ... import holds
from ...bpf import libbpf, maps
from ...bpf.pins import PinPlaces
from ...engine import Handler
from ...model import Json
from ...paths import NodePaths
from . import NAME, layout, reservation, sessions
from .control import write_mode
from .layout import FlowKind, ProgramMode
from .observe import read_devices
from .resolution import PROGRAM_MODES

PAUSE_SECONDS = 0.2
#: A look at a full table takes time of the CPU; between two there are so many times as long.
PAUSES_PER_LOOK = 4


class ModeHandlers:
    """The handlers of the mode and of the table of flows."""

    def __init__(self, paths: NodePaths, pins: PinPlaces, notes: list[str]) -> None:
        """Binds the handlers to an installation; ``notes`` collects what the operator should know."""
        self._paths = paths
        self._pins = pins
        self._notes = notes

    def table(self) -> dict[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            "ipvs_bpf.set_mode": self.set_mode,
            "ipvs_bpf.observe": self.observe,
            "ipvs_bpf.reserve": self.reserve,
            "ipvs_bpf.drain": self.drain,
            "ipvs_bpf.resume": self.resume,
            "ipvs_bpf.forget_flows": self.forget_flows,
        }

    def set_mode(self, arguments: Mapping[str, Json]) -> None:
        """Writes the mode, unless an operator has switched by hand since the plan was made."""
        write_mode(self._pins, self._allowed(ProgramMode(arguments["mode"])))

    def observe(self, arguments: Mapping[str, Json]) -> None:
        """Has the programs note, for some seconds, the flows that conntrack has."""
        mode = self._allowed(ProgramMode.OBSERVE)
        write_mode(self._pins, mode)
        if mode is ProgramMode.OBSERVE:
            time.sleep(float(arguments["seconds"]))

    def reserve(self, _: Mapping[str, Json]) -> None:
        """Enters the source ports that conntrack has given away, so that no session gets them."""
        taken = reservation.taken(read_devices(self._pins).values())
        with self._flows() as flows:
            for key in taken:
                if not enter(flows, sessions.packed_key(key), FlowKind.RESERVED):
                    self._notes.append("the table of flows is too full to reserve ports that conntrack has")
                    return

    def drain(self, arguments: Mapping[str, Json]) -> None:
        """Waits until no session is alive; what is left at the deadline is a note."""
        deadline = time.monotonic() + float(arguments["seconds"])
        while True:
            begun = time.monotonic()
            left = self._alive()
            if not left:
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(max(PAUSE_SECONDS, PAUSES_PER_LOOK * (time.monotonic() - begun)))
        masqueraded = sum(session.masqueraded for session in left)
        self._notes.append(
            f"{len(left)} sessions had not ended after {arguments['seconds']} s; "
            f"{masqueraded} of them, masqueraded, are broken off"
        )

    def resume(self, arguments: Mapping[str, Json]) -> None:
        """Takes new flows again after a drain that was given up."""
        self.observe(arguments)
        self.reserve({})
        self.set_mode({"mode": ProgramMode.ON.value})

    def forget_flows(self, _: Mapping[str, Json]) -> None:
        """Empties the table of flows; the mode is off, so nobody looks into it."""
        delete(self._pins, sessions.read(self._pins))

    def _allowed(self, mode: ProgramMode) -> ProgramMode:
        """Returns the mode, or what an operator holds where the wish goes on."""
        held = holds.read(self._paths, NAME).mode
        if held is None or mode not in (ProgramMode.ON, ProgramMode.OBSERVE):
            return mode
        return PROGRAM_MODES[held]

    def _alive(self) -> list[sessions.Session]:
        now = sessions.monotonic()
        table = sessions.read(self._pins)
        return [session for session in sessions.sessions(table) if session.alive(now)]

    def _flows(self) -> maps.Map[layout.FlowKey, layout.Flow]:
        return maps.Map.pinned(self._pins.map("flows"), layout.FlowKey, layout.Flow)


def enter(flows: maps.Map[layout.FlowKey, layout.Flow], key: layout.FlowKey, kind: FlowKind) -> bool:
    """Enters a flow that is not there yet; returns False when the table is full."""
    try:
        flows.add(key, layout.Flow(kind=kind))
    except libbpf.BpfError as error:
        if error.errno not in (errno.E2BIG, errno.ENOMEM):
            raise
        return False
    return True


def delete(pins: PinPlaces, keys: Iterable[sessions.Key]) -> None:
    """Deletes flows."""
    with maps.Map.pinned(pins.map("flows"), layout.FlowKey, layout.Flow) as flows:
        for key in keys:
            flows.delete(sessions.packed_key(key))
