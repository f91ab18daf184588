"""What a load generator found, read from the output of wrk, redis-benchmark and the project's own tool."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.mesh_load import parse_requests

LATENCY_SCRIPT = Path(__file__).parent / "templates" / "latencies.lua"
MICROSECOND = 1e-6
MILLISECOND = 1e-3

Percentiles = tuple[tuple[float, float], ...]
"""Pairs of a percentage and the latency in seconds that so many requests stay within, ascending."""

_REDIS_REQUESTS = re.compile(r"(\d+) requests completed in ([\d.]+) seconds")
_REDIS_PERCENTILE = re.compile(r"([\d.]+)% <= ([\d.]+) milliseconds \(cumulative count \d+\)")
_REDIS_RATE = re.compile(r"throughput summary: ([\d.]+) requests per second")
_REDIS_SUMMARY = re.compile(r"avg\s+min\s+p50\s+p95\s+p99\s+max\s+([\d. ]+)")


@dataclass(frozen=True)
class LoadResult:
    """One run of a load generator. Times are in seconds."""

    requests: int
    duration: float
    errors: int
    latency_mean: float
    latency_p50: float
    latency_p99: float
    percentiles: Percentiles

    @property
    def qps(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.duration


def wrk_command(url: str, seconds: int, connections: int) -> list[str]:
    """Return the command line of wrk whose output parse_wrk reads."""
    return [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
        "--script", str(LATENCY_SCRIPT), url,
    ]  # fmt: skip


def parse_wrk(output: str) -> LoadResult:
    """Read the line that LATENCY_SCRIPT makes wrk write; raises ValueError when it is missing."""
    figures = json.loads(_json_line(output))
    percentiles = tuple((percent, time * MICROSECOND) for percent, time in figures["percentiles"])
    return LoadResult(
        requests=figures["requests"],
        duration=figures["duration"] * MICROSECOND,
        errors=figures["errors"],
        latency_mean=figures["mean"] * MICROSECOND,
        latency_p50=at_percent(percentiles, 50),
        latency_p99=at_percent(percentiles, 99),
        percentiles=percentiles,
    )


def parse_redis_benchmark(output: str) -> LoadResult:
    """Read the report of one test of redis-benchmark; raises ValueError when a part of it is missing.

    Its rate is taken rather than its duration, which it rounds to hundredths of a second.
    """
    requests = int(_found(_REDIS_REQUESTS, output).group(1))
    rate = float(_found(_REDIS_RATE, output).group(1))
    summary = [float(word) * MILLISECOND for word in _found(_REDIS_SUMMARY, output).group(1).split()]
    distribution = output.partition("Latency by percentile distribution:")[2].partition("Cumulative")[0]
    mean, _minimum, p50, _p95, p99, _maximum = summary
    return LoadResult(
        requests=requests,
        duration=requests / rate,
        errors=0,  # redis-benchmark ends with an error status at the first one
        latency_mean=mean,
        latency_p50=p50,
        latency_p99=p99,
        percentiles=tuple(
            (float(percent), float(time) * MILLISECOND)
            for percent, time in _REDIS_PERCENTILE.findall(distribution)
        ),
    )


def parse_mesh_load(output: str) -> LoadResult:
    """Read the result of a pingpong of the project's own load generator."""
    result = parse_requests(output)
    return LoadResult(
        requests=result.requests,
        duration=result.seconds,
        errors=0,  # mesh_load ends with an error status at the first one
        latency_mean=result.latencies.mean,
        latency_p50=result.latencies.percentile(50),
        latency_p99=result.latencies.percentile(99),
        percentiles=result.latencies.percentiles(),
    )


def at_percent(percentiles: Percentiles, percent: float) -> float:
    """Return the latency at a percentage, between two known ones on a straight line."""
    below = percentiles[0]
    for point in percentiles:
        if point[0] >= percent:
            return _between(below, point, percent)
        below = point
    return below[1]


def _between(below: tuple[float, float], above: tuple[float, float], percent: float) -> float:
    if above[0] == below[0]:
        return above[1]
    share = (percent - below[0]) / (above[0] - below[0])
    return below[1] + share * (above[1] - below[1])


def _json_line(output: str) -> str:
    for line in output.splitlines():
        if line.startswith("{"):
            return line
    raise ValueError(f"no figures in the output of the load generator:\n{output}")


def _found(pattern: re.Pattern[str], output: str) -> re.Match[str]:
    match = pattern.search(output)
    if match is None:
        raise ValueError(f"no {pattern.pattern!r} in the output of redis-benchmark:\n{output}")
    return match
