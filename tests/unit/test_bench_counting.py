"""Counting instructions: what is no count, and what does not repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.bench.counting import clock, command
from tests.bench.counting.benchmarks import ALL
from tests.bench.counting.clock import NotCountedError, check_clock, instruction_cost
from tests.bench.results import spread_of
from tests.vm import emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.results import Figures


def document(off: float, on: float) -> dict[str, Any]:
    """Return a result of one case whose runs lie so far apart."""
    spread = {"off": {"instructions": off}, "on": {"instructions": on}}
    return {"name": "sockops-instructions", "cases": [{"label": "round trip", "spread": spread}]}


def idle_for(uptime: Path, hundredths: int) -> Callable[[object, float], Figures]:
    """Return a measurement of 1000 operations a second, in which the processor has so long nothing to do."""
    uptime.write_text("20.00 15.65\n", encoding="ascii")

    def measure(_arm: object, _seconds: float) -> Figures:
        uptime.write_text(f"20.50 {(1565 + hundredths) / 100}\n", encoding="ascii")
        return {"qps": 1000.0, "latency_mean": 0.001}

    return measure


def test_emulator_and_clock_agree_on_what_an_instruction_takes() -> None:
    options = dict(zip(emulator.counting("max")[::2], emulator.counting("max")[1::2], strict=True))
    shift = int(options["-icount"].partition("shift=")[2].partition(",")[0])
    assert 2**shift * clock.INSTRUCTIONS_PER_SECOND == 10**9


def test_instructions_are_those_of_one_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "UPTIME", tmp_path / "uptime")
    measure = instruction_cost(idle_for(clock.UPTIME, clock.START_IDLE_HUNDREDTHS))
    assert measure(None, 0.5) == {"instructions": clock.INSTRUCTIONS_PER_SECOND / 1000}


def test_a_run_in_which_the_clock_moved_without_instructions_is_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "UPTIME", tmp_path / "uptime")
    measure = instruction_cost(idle_for(clock.UPTIME, clock.START_IDLE_HUNDREDTHS + 1))
    with pytest.raises(NotCountedError, match=r"nothing to do for 0\.03 s of 0\.5 s"):
        measure(None, 0.5)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_clock_that_does_not_count_is_found_by_a_loop_of_known_length(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "count_loop", lambda: round(clock.LOOP_INSTRUCTIONS * factor))
    with pytest.raises(NotCountedError, match="was counted as"):
        check_clock()
    monkeypatch.setattr(clock, "count_loop", lambda: clock.LOOP_INSTRUCTIONS + 1)
    check_clock()


def test_runs_that_lie_too_far_apart_are_told_by_arm() -> None:
    assert command.complaints_about(document(off=clock.LIMIT, on=clock.LIMIT)) == []
    (line,) = command.complaints_about(document(off=0.001, on=0.0123))
    assert "sockops-instructions, round trip: the runs of arm on lie 1.23% apart" in line


def test_spread_is_that_of_all_runs_as_a_part_of_their_median() -> None:
    runs = [{"instructions": 98.0, "qps": 0.0}, {"instructions": 103.0, "qps": 0.0}, {"instructions": 100.0}]
    assert spread_of(runs) == {"instructions": pytest.approx(0.05)}
    assert spread_of(runs[:2]) == {"instructions": pytest.approx(5 / 100.5)}


def test_every_name_begins_with_its_accelerator_and_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(benchmark.name in listed for benchmark in ALL)
    assert {benchmark.name.partition("-")[0] for benchmark in ALL} <= {"sockops", "ipvs", "socket", "vpp"}


@pytest.mark.parametrize("words", [["nonsense"], ["--kernel", "2.4"], ["--pairs", "0"], ["--seconds", "0"]])
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse(words)
    assert ended.value.code == 2
    assert words[-1] in capsys.readouterr().err
