# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what changes the table of denied networks, live connections included."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from ....bpf import attach
from ....bpf.ownership import opened
from ....engine import Handler
from ....model import Json
from ..observe import Places, read_control
from . import table
from .networks import parse_network

#: A connection that was just being made when the table was written is in the hash after so long.
PAUSE_SECONDS = 0.05
SMALLEST_PASSES = 2


class DenialHandlers:
    """The handlers of one run."""

    def __init__(self, places: Places) -> None:
        """Binds the handlers to an installation's pins."""
        self._places = places

    def table(self) -> Mapping[str, Handler]:
        """Returns the handlers by kind of action."""
        return {"sockops.deny_networks": self.deny_networks}

    def deny_networks(self, arguments: Mapping[str, Json]) -> None:
        """Writes the table, then gives live connections that it denies to TCP.

        Their next message goes by TCP. Again until there is none: a message may
        pair two ends at the moment they are looked at.
        """
        networks = tuple(map(parse_network, arguments["networks"]))
        table.write(self._places.maps, networks)
        # Without BTF the kernel takes no such program, and only new connections are denied.
        if not networks or not os.path.exists(self._deny_program()):
            return
        passes = 0
        while self._deny_pass() or passes < SMALLEST_PASSES:
            passes += 1
            time.sleep(PAUSE_SECONDS)

    def _deny_pass(self) -> bool:
        """Goes through all sockets once; returns whether one was denied."""
        with opened(self._deny_program()) as program, opened(self._places.map("sockets")) as sockets:
            return bool(attach.run_map_iterator(program, sockets))

    def _deny_program(self) -> str:
        return self._places.program(read_control(self._places).digest, "meshaccel_deny")
