# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs' control entry, changed in part."""

from __future__ import annotations

import ctypes

from ...bpf import maps
from ...bpf.pins import PinPlaces
from . import layout
from .observe import ONLY, read_control


def change_control(pins: PinPlaces, **members: int) -> None:
    """Writes some members of the control entry; the others stay. Runs take turns by the node's lock."""
    control = read_control(pins)
    for name, value in members.items():
        setattr(control, name, value)
    with maps.Map.pinned(pins.map("control"), ctypes.c_uint32, layout.Control) as table:
        table.write(ONLY, control)


def write_mode(pins: PinPlaces, mode: layout.ProgramMode) -> None:
    """Writes the mode: every packet from now on sees it."""
    change_control(pins, mode=layout.MODE_NUMBERS[mode])
