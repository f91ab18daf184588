"""The project's own load generator, tests/bench/load: its command lines and its results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.support.prebuilt import is_prebuilt
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
SOURCE_DIRECTORY = ROOT / "tests" / "bench"
PROGRAM = ROOT / "build" / "bench" / "mesh_load"
FULL_PERCENTAGE = 100.0
BUILD_SECONDS = 120.0
START_SECONDS = 10.0
"""How long a client may take to start, connect and write its result."""

ServerMode = Literal["echo", "sink", "mixed-server"]
ClientMode = Literal["pingpong", "connect", "stream", "mixed"]


@dataclass(frozen=True)
class Latencies:
    """How long requests took, in seconds."""

    count: int
    mean: float
    minimum: float
    maximum: float
    buckets: tuple[tuple[float, int], ...]
    """The upper bound and the number of requests of each bucket, rising; within 0.8 %."""

    def percentile(self, percentage: float) -> float:
        """Return the time that `percentage` percent of the requests stayed within.

        Raises ValueError when there were no requests.
        """
        wanted = self.count * percentage / FULL_PERCENTAGE
        seen = 0
        for upper, number in self.buckets:
            seen += number
            if seen >= wanted:
                return min(upper, self.maximum)
        raise ValueError(f"no latency at {percentage} %: {self.count} requests were counted")

    def percentiles(self) -> tuple[tuple[float, float], ...]:
        """Return the whole distribution: pairs of a percentage and its time, rising in both."""
        points: list[tuple[float, float]] = []
        seen = 0
        for upper, number in self.buckets:
            seen += number
            points.append((FULL_PERCENTAGE * seen / self.count, min(upper, self.maximum)))
        return tuple(points)


@dataclass(frozen=True)
class RequestResult:
    """What a pingpong or connect client measured, up to the moment that the last reply was there."""

    seconds: float
    requests: int
    latencies: Latencies

    @property
    def requests_per_second(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class StreamResult:
    """What a stream client measured, up to the moment that the sink had read the last byte."""

    seconds: float
    bytes: int

    @property
    def bytes_per_second(self) -> float:
        """Bytes that arrived in a second, over all connections."""
        return self.bytes / self.seconds


@dataclass(frozen=True)
class MixedResult:
    """What a mixed client measured, up to the end of the phases under way at the end."""

    seconds: float
    bytes: int
    """Those of requests, of replies and of bursts."""
    requests: RequestResult
    """The requests alone, in the time of everything."""

    @property
    def bytes_per_second(self) -> float:
        """Bytes that arrived in a second, either way, over all connections."""
        return self.bytes / self.seconds


@dataclass(frozen=True)
class Client:
    """What a client is to do; see `mesh_load --help` for the meaning."""

    mode: ClientMode
    size: int = 64
    connections: int = 1
    duration: float = 1.0
    warmup: float = 0.0
    threads: int = 1
    verify: bool = False
    patience: float = 10.0
    requests: int = 0
    """Of a mixed client in a row; 0: as many as it thinks fit."""
    burst: int = 0
    """Bytes of a mixed client's burst; 0: as many as it thinks fit."""

    def command(self, address: str, port: int) -> list[str]:
        """Return the command line against a server at a numeric address."""
        words = [
            *(str(PROGRAM), self.mode, "--address", address, "--port", str(port)),
            *("--size", str(self.size), "--connections", str(self.connections)),
            *("--duration", str(self.duration), "--warmup", str(self.warmup)),
            *("--threads", str(self.threads), "--patience", str(self.patience)),
        ]
        if self.requests:
            words += ["--requests", str(self.requests)]
        if self.burst:
            words += ["--burst", str(self.burst)]
        return [*words, "--verify"] if self.verify else words

    @property
    def time_limit(self) -> float:
        """Seconds after which a client like this must have ended."""
        return self.warmup + self.duration + self.patience + START_SECONDS


def server_command(mode: ServerMode, port: int, *, address: str = "::", verify: bool = False) -> list[str]:
    """Return the command line of a server, by default at every address of both families."""
    words = [str(PROGRAM), mode, "--address", address, "--port", str(port)]
    return [*words, "--verify"] if verify else words


def parse_requests(output: str) -> RequestResult:
    """Read what a pingpong or connect client wrote; raises ValueError or KeyError when it is else."""
    found = json.loads(output)
    latency = found["latency"]
    latencies = Latencies(
        latency["count"],
        latency["mean"],
        latency["minimum"],
        latency["maximum"],
        tuple((upper, number) for upper, number in latency["buckets"]),
    )
    return RequestResult(found["seconds"], found["requests"], latencies)


def parse_stream(output: str) -> StreamResult:
    """Read what a stream client wrote; raises ValueError or KeyError when it is something else."""
    found = json.loads(output)
    return StreamResult(found["seconds"], found["bytes"])


def parse_mixed(output: str) -> MixedResult:
    """Read what a mixed client wrote; raises ValueError or KeyError when it is something else."""
    requests = parse_requests(output)
    return MixedResult(requests.seconds, json.loads(output)["bytes"], requests)


def build(targets: Sequence[str] = ("all",)) -> None:
    """Compile what is older than its sources; raises ProcessError with the compiler's complaint.

    Does nothing where it was brought along.
    """
    if is_prebuilt():
        return
    run(["make", "-s", "-C", str(SOURCE_DIRECTORY), *targets], timeout=BUILD_SECONDS)
