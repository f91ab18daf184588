# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What is to be measured, within bounds that keep a probe from being a load test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidInput
from ..model import Json
from .exchange import LOOPBACK, Load
from .figures import alternate

ON, OFF, ENDPOINT = "on", "off", "endpoint"

#: What each number may be, both ends included.
LIMITS: Mapping[str, tuple[float, float]] = {
    "port": (1, 65_535),
    "message_bytes": (1, 1 << 24),
    "connections": (1, 1024),
    "messages": (1, 10_000_000),
    "duration": (0.1, 600),
    "pairs": (1, 50),
}
#: A pattern, so that bytes that are lost or out of order show as a wrong response.
PATTERN = bytes(range(251))


@dataclass(frozen=True)
class Settings:
    """One measurement.

    Without ``address`` a pair of its own echoes in each arm. Without ``cgroup``
    there is one arm only, in the caller's own cgroup. ``duration`` is in seconds
    for all runs together; ``messages`` and ``connections`` are for each run.
    """

    request: bytes
    response: bytes
    address: str | None = None
    port: int = 0
    cgroup: str | None = None
    connections: int = 1
    messages: int = 2000
    duration: float = 10.0
    pairs: int = 2

    @classmethod
    def parse(cls, raw: Mapping[str, Json]) -> Settings:
        """Parses a module's parameters; raises InvalidInput for the first one out of bounds."""
        for name, (lowest, highest) in LIMITS.items():
            check(name, raw[name], lowest, highest)
        request = payload(raw["message_bytes"]) if raw["request"] is None else encoded(raw, "request")
        return cls(
            request=request,
            response=request if raw["response"] is None else encoded(raw, "response"),
            address=raw["address"],
            port=raw["port"] or 0,
            cgroup=raw["cgroup"],
            connections=raw["connections"],
            messages=raw["messages"],
            duration=raw["duration"],
            pairs=raw["pairs"],
        )

    def order(self) -> tuple[str, ...]:
        """Returns the arm of each run."""
        if self.cgroup is None:
            return (ENDPOINT,) * (2 * self.pairs)
        return alternate(OFF, ON, self.pairs)

    def load(self, port: int) -> Load:
        """Returns what the client does in one run."""
        return Load(
            address=self.address or LOOPBACK,
            port=port,
            request=self.request,
            response=self.response,
            connections=self.connections,
            messages=self.messages,
            seconds=self.duration / len(self.order()),
        )


def payload(length: int) -> bytes:
    """Returns so many bytes of the pattern."""
    return (PATTERN * math.ceil(length / len(PATTERN)))[:length]


def encoded(raw: Mapping[str, Json], name: str) -> bytes:
    """Returns a text parameter as bytes; raises InvalidInput when it is empty."""
    text = str(raw[name])
    if not text:
        raise InvalidInput(
            wanted=f"at least one byte as {name}",
            found="an empty text",
            remedy="leave it out to have a message of message_bytes echoed",
        )
    return text.encode()


def check(name: str, value: float | None, lowest: float, highest: float) -> None:
    """Raises InvalidInput when a number is out of its bounds; None is not given."""
    if value is not None and not lowest <= value <= highest:
        raise InvalidInput(wanted=f"{name} from {lowest} to {highest}", found=str(value), remedy="correct it")
