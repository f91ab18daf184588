# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ports and ranges of them, as operators write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...model import Json
from . import layout
from .checks import invalid, is_number

LARGEST_PORT = 65535


@dataclass(frozen=True, order=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_ports(entries: Json) -> tuple[PortRange, ...]:
    """Parses a list of ports (``80``, ``"8000-8100"``), sorted; empty means all."""
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        invalid("a list of ports", repr(entries), 'for example [15006, "8000-8100"]')
    ranges = tuple(sorted({parse_port_range(entry) for entry in entries}))
    if len(ranges) > layout.PORT_RANGES:
        invalid(f"at most {layout.PORT_RANGES} ports and ranges", str(len(ranges)), "join some")
    return ranges


def parse_port_range(entry: Json) -> PortRange:
    """Parses one port or range."""
    first, separator, last = str(entry).partition("-")
    numbers = (first, last if separator else first)
    if isinstance(entry, bool) or not all(is_number(text) for text in numbers):
        invalid("a port or a range of ports", repr(entry), 'for example 15006 or "8000-8100"')
    result = PortRange(int(numbers[0]), int(numbers[1]))
    if not 1 <= result.first <= result.last <= LARGEST_PORT:
        invalid(f"ports from 1 to {LARGEST_PORT}, first not above last", repr(entry), "correct it")
    return result
