# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From latencies to figures: pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: One run's figures under their names; times in seconds.
Figures = dict[str, float]
#: What is a share already is not compared as a ratio.
SHARES = frozenset({"redirected_share"})


@dataclass(frozen=True)
class Run:
    """What one run saw.

    ``payload_bytes`` is what the program wrote and read, ``tcp_bytes`` what of it
    TCP carried; the rest was handed from socket to socket.
    """

    latencies: tuple[float, ...]
    seconds: float
    payload_bytes: int
    tcp_bytes: int

    def figures(self) -> Figures:
        """Returns the run's figures; there is at least one latency."""
        ordered = sorted(self.latencies)
        return {
            "qps": len(ordered) / self.seconds,
            "latency_mean": statistics.fmean(ordered),
            "latency_p50": percentile(ordered, 50),
            "latency_p99": percentile(ordered, 99),
            "bytes_per_second": self.payload_bytes / self.seconds,
            "redirected_share": share(self.payload_bytes - self.tcp_bytes, self.payload_bytes),
        }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the nearest-rank percentile of ascending values: always one that was measured."""
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def share(part: int, whole: int) -> float:
    """Returns a part of a whole as 0 to 1; nothing of nothing is 0."""
    return min(max(part / whole, 0.0), 1.0) if whole else 0.0


def medians(runs: Iterable[Figures]) -> Figures:
    """Returns the median of each figure over the runs of one arm."""
    collected = list(runs)
    return {name: statistics.median(run[name] for run in collected) for name in collected[0]}


def ratio(on: Mapping[str, float], off: Mapping[str, float]) -> Figures:
    """Returns on / off for each figure that can be divided."""
    return {name: on[name] / off[name] for name in on if name not in SHARES and off[name]}


def alternate(first: str, second: str, pairs: int) -> tuple[str, ...]:
    """Orders the runs of two arms A B B A A B ...: a drift of the machine hits both alike."""
    order: list[str] = []
    for number in range(pairs):
        order += [first, second] if number % 2 == 0 else [second, first]
    return tuple(order)
