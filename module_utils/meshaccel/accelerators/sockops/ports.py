# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The ports that sockops accelerates or denies."""

from __future__ import annotations

from collections.abc import Sequence

from ...checks import invalid
from ...model import Json
from ...ports import PortRange, parse_port_range
from . import layout


def parse_ports(entries: Json) -> tuple[PortRange, ...]:
    """Parses a list of ports (``80``, ``"8000-8100"``), sorted; empty means all."""
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        invalid("a list of ports", repr(entries), 'for example [15006, "8000-8100"]')
    ranges = tuple(sorted({parse_port_range(entry) for entry in entries}))
    if len(ranges) > layout.PORT_RANGES:
        invalid(f"at most {layout.PORT_RANGES} ports and ranges", str(len(ranges)), "join some")
    return ranges
