"""What a message costs in BPF, by the statistics that the kernel keeps of program runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.support.bpftool import RunStatistics, run_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.bench.results import Figures

ArmKind = TypeVar("ArmKind")

STATISTICS_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
MESSAGE_PROGRAM_TYPE = "sk_msg"
NANOSECONDS_PER_SECOND = 1e9
NOTHING = RunStatistics(0.0, 0)


def message_cost(
    measure: Callable[[ArmKind, float], Figures],
) -> Callable[[ArmKind, float], Figures]:
    """Return a measurement of BPF time a message under the load of another measurement.

    An arm without a program has no such figure. The load's own figures are left out: counting
    makes every run of a program a little slower.
    """

    def measure_cost(arm: ArmKind, seconds: float) -> Figures:
        with statistics_enabled():
            before = run_statistics(MESSAGE_PROGRAM_TYPE)
            measure(arm, seconds)
            after = run_statistics(MESSAGE_PROGRAM_TYPE)
        return cost_of_busiest([after[key] - before.get(key, NOTHING) for key in after])

    return measure_cost


def cost_of_busiest(spent: Iterable[RunStatistics]) -> Figures:
    """Return the time a run of the program that ran most often; nothing when none ran.

    The kernel counts for the whole machine, on which somebody else's messages may pass programs too.
    """
    busiest = max(spent, key=lambda item: item.runs, default=NOTHING)
    if not busiest.runs:
        return {}
    return {"bpf_ns_per_message": busiest.seconds * NANOSECONDS_PER_SECOND / busiest.runs}


@contextlib.contextmanager
def statistics_enabled() -> Iterator[None]:
    """Let the kernel count run time and number of all programs meanwhile."""
    before = STATISTICS_SWITCH.read_text(encoding="ascii")
    STATISTICS_SWITCH.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        STATISTICS_SWITCH.write_text(before, encoding="ascii")
