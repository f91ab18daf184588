"""Several arms in turn: what each takes beyond the reference, and the result in the usual form."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import TYPE_CHECKING

import pytest

from tests.bench.counting import command
from tests.bench.counting.in_turn import InTurn, with_own_figures
from tests.bench.model import Case
from tests.bench.report import write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.results import Figures

COSTS = {"routed": 200.0, "off": 300.0, "on": 260.0, "fast": 240.0}


class Arms:
    """Arms that cost what COSTS says, and remember the order in which they were measured."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.running: set[str] = set()

    @contextlib.contextmanager
    def arm(self, name: str) -> Iterator[str]:
        self.running.add(name)
        yield name
        self.running.remove(name)

    def measure(self, arm: str, seconds: float) -> Figures:
        assert self.running == set(COSTS)
        assert seconds > 0
        self.measured.append(arm)
        return {"instructions": COSTS[arm]}


@pytest.fixture
def arms() -> Arms:
    return Arms()


@pytest.fixture
def benchmark(arms: Arms) -> InTurn[str]:
    return InTurn(
        "ipvs-example",
        "Example",
        {name: functools.partial(arms.arm, name) for name in COSTS},
        reference="routed",
        against="off",
        compared={"on": "", "fast": ", fast path"},
        cases=(Case("short connection", "64 bytes", arms.measure),),
        pairs=2,
        seconds=0.5,
    )


def test_every_arm_is_compared_and_the_reference_stands_beside(benchmark: InTurn[str], arms: Arms) -> None:
    document = benchmark.run(2, 0.5, lambda _: None).document()
    assert arms.running == set()
    labels = [case["label"] for case in document["cases"]]
    assert labels == ["short connection", "short connection, fast path"]
    assert document["arms"] == {
        "off": {"instructions": 300.0, "director_instructions": 100.0},
        "on": {"instructions": 260.0, "director_instructions": 60.0},
        "routed": {"instructions": 200.0},
    }
    assert document["ratio"]["director_instructions"] == pytest.approx(0.6)
    assert document["cases"][1]["ratio"]["director_instructions"] == pytest.approx(0.4)
    assert set(document["spread"]) == {"off", "on", "routed"}
    assert command.complaints_about(document) == []


def test_the_order_changes_from_round_to_round_after_one_that_does_not_count(
    benchmark: InTurn[str], arms: Arms
) -> None:
    benchmark.run(2, 0.5, lambda _: None)
    assert arms.measured == [*COSTS, *COSTS, *reversed(COSTS)]


def test_the_reference_has_nothing_beyond_itself() -> None:
    measured = with_own_figures({"routed": {"instructions": 5.0}, "off": {"instructions": 7.0}}, "routed")
    assert measured == {
        "routed": {"instructions": 5.0},
        "off": {"instructions": 7.0, "director_instructions": 2.0},
    }


def test_the_page_shows_them_without_a_word_of_redirection(benchmark: InTurn[str], tmp_path: Path) -> None:
    found = benchmark.run(1, 0.5, lambda _: None)
    (tmp_path / found.file_name).write_text(json.dumps(found.document()), encoding="utf-8")
    page = write_report(tmp_path, [benchmark.name]).read_text(encoding="utf-8")
    assert "of them the director&#39;s own" in page
    assert "redirected" not in page
