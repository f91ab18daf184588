"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_args

from tests.bench.benchmarks import ALL, BY_NAME
from tests.bench.cells import ALL_CELLS, DIMENSIONS, chosen
from tests.bench.comparison import NotComparableError, compared_rows, compared_table, write_comparison
from tests.bench.grid_table import grid_rows
from tests.bench.model import Baseline
from tests.bench.report import read, write_report
from tests.bench.runner import Schedule, run_benchmark
from tests.bench.terminal import say, say_lines, show
from tests.support import mesh_load
from tests.support.leftovers import remove_leftovers
from tests.support.processes import termination_as_exit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.bench.model import Benchmark

RESULTS = mesh_load.ROOT / "build" / "bench"
STANDARD_OUTPUT = "-"
SHORTEST_RUN = 0.05
CELL_WORDS = "; ".join(", ".join(line) for line in DIMENSIONS)

Number = TypeVar("Number", int, float)


class HasTitle(Protocol):
    """What a list of benchmarks tells of each."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...


def main(words: Sequence[str]) -> int:
    """Run what the command line names and return the exit status."""
    options = parse(words)
    if options.list:
        print(titles(ALL))
        return 0
    try:
        if len(options.compare) == 2:
            compare(*options.compare)
        else:
            measure(options)
    except NotComparableError as error:
        say(f"not compared: {error}")
        return 1
    return 0


def titles(benchmarks: Sequence[HasTitle]) -> str:
    """Return what --list prints."""
    return "\n".join(f"{benchmark.name:28} {benchmark.title}" for benchmark in benchmarks)


def measure(options: argparse.Namespace) -> None:
    """Run the benchmarks, keep and show their results, and compare them if asked to."""
    mesh_load.build()
    remove_leftovers()
    with termination_as_exit():
        for name in options.names or BY_NAME:
            benchmark = BY_NAME[name]
            result = run_benchmark(benchmark, schedule_of(options, benchmark), say)
            keep(result.document(), result.file_name, options.json)
            show(result)
            for before in options.compare:
                compare(before, result.document())
    say(f"report: {write_report(RESULTS, list(BY_NAME))}")


def schedule_of(options: argparse.Namespace, benchmark: Benchmark[Any]) -> Schedule:
    """Return how a benchmark is to be run: as the options say, else as it says itself."""
    return Schedule(
        options.pairs or benchmark.pairs,
        options.seconds or benchmark.seconds,
        options.against or benchmark.baseline,
        benchmark.again if options.again is None else options.again,
        options.cells,
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; ends the program with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Measure what an accelerator changes, in interleaved pairs of runs.",
        epilog="Pairs, length and what is compared with are each benchmark's own unless given here.",
    )
    add_options(parser)
    options = parser.parse_args(words)
    complaint = complaint_about(options)
    if complaint:
        parser.error(complaint)
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command line may hold."""
    add_common_options(parser)
    parser.add_argument(
        "--against",
        choices=get_args(Baseline),
        help="compare with plain TCP, with the tuple-keyed variant, or with a program that does nothing",
    )
    parser.add_argument(
        "--cells",
        type=cell_words,
        default=(),
        metavar="WORD,...",
        help=f"of a grid these cells alone, such as stream,busy; the words are {CELL_WORDS}",
    )
    parser.add_argument(
        "--again",
        type=second_pair_count,
        metavar="N",
        help="of a grid: measure cells beyond a limit again with N pairs, which then count alone; 0: do not",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        type=grid_result,
        default=(),
        metavar=("BEFORE", "AFTER"),
        help="show the result of a grid in the file BEFORE beside the one measured now, or beside "
        "that in AFTER without measuring",
    )


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what every command that runs benchmarks takes."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run, by default all")
    parser.add_argument("--list", action="store_true", help="list the names and end")
    parser.add_argument("--pairs", type=pair_count, metavar="N", help="pairs of runs")
    parser.add_argument("--seconds", type=run_length, metavar="S", help="length of a run")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the results there too, one a line; - is standard output",
    )


def complaint_about(options: argparse.Namespace) -> str | None:
    """Return what is wrong with options that are each right by themselves."""
    unknown = complaint_about_names(options.names, BY_NAME)
    if unknown:
        return unknown
    are_grids = bool(options.names) and all(BY_NAME[name].has_cells() for name in options.names)
    if options.cells and not are_grids:
        return "--cells is for grids: name them"
    if len(options.compare) > 2 or (len(options.compare) == 2 and options.names):
        return "--compare takes a file and the name of a grid to run, or two files and no name"
    if len(options.compare) == 1 and not are_grids:
        return "--compare with one file is for grids: name the one to run"
    return None


def complaint_about_names(names: Sequence[str], known: Collection[str]) -> str | None:
    """Return what is wrong with the names of benchmarks."""
    unknown = [name for name in names if name not in known]
    return f"no benchmark {', '.join(unknown)}; --list names all" if unknown else None


def pair_count(word: str) -> int:
    """Read a number of pairs; raises ValueError, which argparse reports."""
    return at_least(1, int(word))


def second_pair_count(word: str) -> int:
    """Read a number of pairs that may be none; raises ValueError, which argparse reports."""
    return at_least(0, int(word))


def run_length(word: str) -> float:
    """Read a duration in seconds; raises ValueError, which argparse reports."""
    return at_least(SHORTEST_RUN, float(word))


def cell_words(word: str) -> tuple[str, ...]:
    """Read words that name cells; raises ArgumentTypeError for one that names none."""
    words = tuple(word.split(","))
    try:
        chosen(ALL_CELLS, words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return words


def grid_result(word: str) -> dict[str, Any]:
    """Read a grid's result from its file; raises ArgumentTypeError when it holds something else."""
    try:
        document = read(Path(word))
        grid_rows(document)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{word}: not the result of a grid: {error}") from error
    return document


def at_least(least: Number, value: Number) -> Number:
    """Return the value, or raise ValueError when it is too small or no number."""
    if not least <= value < float("inf"):
        raise ValueError(f"{value} is not at least {least}")
    return value


def keep(document: Mapping[str, Any], file_name: str, copy: str | None) -> None:
    """Write a result to its own file, and as one line to where the user wants a copy."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2) + "\n"
    (RESULTS / file_name).write_text(text, encoding="utf-8")
    line = json.dumps(document)
    if copy == STANDARD_OUTPUT:
        print(line, flush=True)
    elif copy is not None:
        with Path(copy).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Show two results of a grid side by side; raises NotComparableError when they cannot be."""
    say_lines(compared_table(compared_rows(before, after)))
    say(f"comparison: {write_comparison(RESULTS, before, after)}")
