"""Bytes that tell their own position, so that loss, doubling and reordering are all seen."""

from __future__ import annotations

import random

PERIOD = 1_000_003
"""A prime: no mix-up by whole messages or pages finds the same bytes again."""
SEED_STEP = 7_919
BLOCK = random.Random(PERIOD).randbytes(PERIOD) * 2
"""Twice the period, so that every piece of at most a period lies in it in one."""


class Corruption(AssertionError):
    """What arrived is not what was sent."""


class Stream:
    """One direction of a connection, at its writer or at its reader. Seeds tell streams apart."""

    def __init__(self, seed: int) -> None:
        """Begin at the first byte."""
        self._start = seed * SEED_STEP
        self.position = 0

    @property
    def place(self) -> int:
        """Where in BLOCK the next bytes lie."""
        return (self._start + self.position) % PERIOD

    def next(self, length: int) -> bytes:
        """Return the next bytes to write, at most PERIOD of them, and step over them."""
        place = self.place
        self.position += length
        return BLOCK[place : place + length]

    def back(self, length: int) -> None:
        """Step back over bytes that the socket did not take."""
        self.position -= length

    def check(self, received: bytes) -> None:
        """Step over bytes that were read; raises Corruption when they are not the next ones."""
        begin = self.position
        if received != self.next(len(received)):
            raise Corruption(f"{len(received)} bytes read after byte {begin} are not those written there")
