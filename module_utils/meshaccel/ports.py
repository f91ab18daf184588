# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Ports and ranges of them, as operators write them."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import invalid, is_number
from .model import Json

LARGEST_PORT = 65535


@dataclass(frozen=True, order=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


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
