"""What a message costs in BPF, by the statistics that the kernel keeps of program runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.support.bpftool import RunStatistics, run_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        spent = [after[key] - before.get(key, NOTHING) for key in after]
        runs = sum(item.runs for item in spent)
        if not runs:
            return {}
        total = sum(item.seconds for item in spent)
        return {"bpf_ns_per_message": total * NANOSECONDS_PER_SECOND / runs}

    return measure_cost


@contextlib.contextmanager
def statistics_enabled() -> Iterator[None]:
    """Let the kernel count run time and number of all programs meanwhile."""
    before = STATISTICS_SWITCH.read_text(encoding="ascii")
    STATISTICS_SWITCH.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        STATISTICS_SWITCH.write_text(before, encoding="ascii")
