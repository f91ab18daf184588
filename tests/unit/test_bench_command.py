"""What the command line of the benchmarks takes, and what it refuses before it measures anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bench import command
from tests.bench.benchmarks import BY_NAME
from tests.bench.command import main, parse, schedule_of
from tests.bench.runner import Schedule
from tests.unit.test_bench_grid import grid_document

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def result_path(tmp_path: Path) -> Path:
    path = tmp_path / "before.json"
    path.write_text(json.dumps(grid_document({"64B stream 8c busy": (0.5, 1.6)})), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["--pairs", "0"],
        ["--pairs", "x"],
        ["--seconds", "nan"],
        ["--again", "-1"],
        ["--against", "on"],
        ["sockops-grid", "--cells", "stream,128MB"],
        ["sockops-grid", "--compare", "no-such-file"],
    ],
)
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)

    assert ended.value.code == 2
    assert words[-1].rpartition(",")[2] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--cells", "busy"], "--cells is for grids"),
        (["sockops-stream", "--cells", "busy"], "--cells is for grids"),
        (["--compare", "FILE"], "name the one to run"),
        (["sockops-stream", "--compare", "FILE"], "name the one to run"),
        (["sockops-grid", "--compare", "FILE", "FILE"], "two files and no name"),
        (["--compare", "FILE", "FILE", "FILE"], "two files and no name"),
    ],
)
def test_words_that_do_not_fit_each_other_are_refused(
    words: list[str], complaint: str, result_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([str(result_path) if word == "FILE" else word for word in words])

    assert complaint in capsys.readouterr().err


def test_a_result_of_something_else_is_not_taken_for_a_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    for text in ("[]", '{"name": "sockops-x", "cases": [{}]}', "no JSON"):
        other.write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit):
            parse(["sockops-grid", "--compare", str(other)])
        assert "not the result of a grid" in capsys.readouterr().err


def test_a_benchmark_decides_where_the_command_line_does_not() -> None:
    grid, cost = BY_NAME["sockops-grid"], BY_NAME["sockops-message-cost"]

    assert schedule_of(parse([]), grid) == Schedule(grid.pairs, grid.seconds, "off", grid.again)
    assert schedule_of(parse([]), cost).against == "empty"
    words = ["--pairs", "2", "--seconds", "0.1", "--against", "classic", "--again", "0", "--cells", "1c"]
    assert schedule_of(parse(["sockops-grid", *words]), grid) == Schedule(2, 0.1, "classic", 0, ("1c",))


def test_two_results_are_compared_without_measuring(
    result_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    after = tmp_path / "after.json"
    after.write_text(json.dumps(grid_document({"64B stream 8c busy": (1.02, 0.99)})), encoding="utf-8")

    assert main(["--compare", str(result_path), str(after)]) == 0
    assert "x0.50< -> x1.02" in capsys.readouterr().err
    assert (tmp_path / "sockops-grid-comparison.html").exists()


def test_results_without_a_common_cell_are_not_compared(
    result_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = tmp_path / "after.json"
    after.write_text(json.dumps(grid_document({"1MB stream 8c busy": (1.0, 1.0)})), encoding="utf-8")

    assert main(["--compare", str(result_path), str(after)]) == 1
    assert "not compared: the two results have no cell in common" in capsys.readouterr().err


def test_the_grid_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "sockops-grid " in capsys.readouterr().out
