"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.bench.benchmarks import ALL, BY_NAME
from tests.bench.report import write_report
from tests.bench.runner import Schedule, run_benchmark
from tests.support import mesh_load
from tests.support.leftovers import remove_leftovers
from tests.support.processes import termination_as_exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.results import BenchmarkResult, Figures

RESULTS = mesh_load.ROOT / "build" / "bench"
STANDARD_OUTPUT = "-"
DEFAULT_PAIRS = 7
DEFAULT_SECONDS = 1.0
SHORTEST_RUN = 0.05

Number = TypeVar("Number", int, float)


def main(words: Sequence[str]) -> int:
    """Run what the command line names and return the exit status."""
    options = parse(words)
    if options.list:
        print("\n".join(f"{benchmark.name:28} {benchmark.title}" for benchmark in ALL))
        return 0
    schedule = Schedule(options.pairs, options.seconds, options.against)
    mesh_load.build()
    remove_leftovers()
    with termination_as_exit():
        for name in options.names or BY_NAME:
            result = run_benchmark(BY_NAME[name], schedule, say)
            keep(result, options.json)
            show(result)
    say(f"report: {write_report(RESULTS, list(BY_NAME))}")
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; ends the program with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Measure what an accelerator changes, in interleaved pairs of runs.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run, by default all")
    parser.add_argument("--list", action="store_true", help="list the names and end")
    parser.add_argument(
        "--pairs",
        type=pair_count,
        default=DEFAULT_PAIRS,
        metavar="N",
        help="pairs of runs (%(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=run_length,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="length of a run (%(default)s)",
    )
    parser.add_argument(
        "--against",
        choices=("off", "classic"),
        default="off",
        help="compare with plain TCP or with the tuple-keyed variant (%(default)s)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the results there too, one a line; - is standard output",
    )
    options = parser.parse_args(words)
    unknown = [name for name in options.names if name not in BY_NAME]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; --list names all")
    return options


def pair_count(word: str) -> int:
    """Read a number of pairs; raises ValueError, which argparse reports."""
    return at_least(1, int(word))


def run_length(word: str) -> float:
    """Read a duration in seconds; raises ValueError, which argparse reports."""
    return at_least(SHORTEST_RUN, float(word))


def at_least(least: Number, value: Number) -> Number:
    """Return the value, or raise ValueError when it is too small or no number."""
    if not least <= value < float("inf"):
        raise ValueError(f"{value} is not at least {least}")
    return value


def keep(result: BenchmarkResult, copy: str | None) -> None:
    """Write a result to its own file, and as one line to where the user wants a copy."""
    document = result.document()
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2) + "\n"
    (RESULTS / result.file_name).write_text(text, encoding="utf-8")
    line = json.dumps(document)
    if copy == STANDARD_OUTPUT:
        print(line, flush=True)
    elif copy is not None:
        with Path(copy).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def say(message: str) -> None:
    """Tell the user; standard output belongs to the results."""
    print(message, file=sys.stderr, flush=True)


def show(result: BenchmarkResult) -> None:
    """Tell the ratios of every case."""
    for case in result.cases:
        ratios = "  ".join(f"{key} x{value:.2f}" for key, value in case.ratio.items())
        say(f"  {case.label:20} {ratios or figures_of(case.on)}")


def figures_of(figures: Figures) -> str:
    """Return figures that have nothing to be compared with."""
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
