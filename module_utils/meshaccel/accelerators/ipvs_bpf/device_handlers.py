# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what plan.py plans for devices: attaches the programs, and detaches them."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ...bpf import traffic_control
from ...bpf.ownership import opened
from ...bpf.pins import PinPlaces
from ...bpf.traffic_control import Direction
from ...engine import Handler
from ...model import Json


class DeviceHandlers:
    """The handlers of what is attached to devices."""

    def __init__(self, pins: PinPlaces) -> None:
        """Binds the handlers to the pins."""
        self._pins = pins

    def table(self) -> dict[str, Handler]:
        """Returns the handlers by kind of action."""
        return {"ipvs_bpf.place": self.place, "ipvs_bpf.remove_clsact": self.remove_clsact}

    def place(self, arguments: Mapping[str, Json]) -> None:
        """Makes a program, or none, the one in each direction; a device that is gone needs none.

        A program is replaced in one step. clsact is added once and stays.
        """
        index = int(arguments["index"])
        try:
            # Egress first: what ingress marks must find it.
            if arguments["ingress"] or arguments["egress"]:
                traffic_control.add_clsact(index)
            for direction in (Direction.EGRESS, Direction.INGRESS):
                self._place(index, direction, arguments[direction.value])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def remove_clsact(self, arguments: Mapping[str, Json]) -> None:
        """Removes a clsact that has no filter of anybody."""
        try:
            traffic_control.remove_clsact_if_empty(int(arguments["index"]))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def _place(self, index: int, direction: Direction, program: Json) -> None:
        if program is None:
            traffic_control.detach(index, direction)
            return
        digest, name = program
        with opened(self._pins.program(digest, name)) as descriptor:
            traffic_control.attach(index, direction, descriptor)
