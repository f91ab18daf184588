"""The command line of the benchmarks that count instructions."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import benchmarks
from tests.bench.command import RESULTS, add_common_options, complaint_about_names, keep, titles
from tests.bench.counting.benchmarks import ALL, BY_NAME
from tests.bench.counting.clock import LIMIT
from tests.bench.report import write_report
from tests.bench.terminal import say
from tests.support import mesh_load
from tests.support.directories import temporary_directory
from tests.support.processes import termination_as_exit
from tests.vm.archive import ArchiveUnknownError
from tests.vm.build import DIRECTORY, Builder, BuildError
from tests.vm.guest import Guest, GuestError
from tests.vm.recipe import DEFAULT_KERNEL, KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.counting.benchmarks import Counting
    from tests.vm.image import Image

GUEST_ROOT = "/srv/meshaccel"
#: Folders of the project that the guest gets, and where there: the accelerator, what runs it, the load.
COPIED = {
    "module_utils": "module_utils",
    "tests": "tests",
    "build/bpf": "build/bpf",
    "build/bench": "build/bench",
}
RUN_SECONDS = 3600.0


def main(words: Sequence[str]) -> int:
    """Do what the command line says and return the exit status."""
    options = parse(words)
    if options.list:
        print(titles(ALL))
        return 0
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Count; returns 1 when that failed, or when the runs of an arm lie too far apart."""
    try:
        with termination_as_exit():
            documents = list(measure(options))
    except (ArchiveUnknownError, BuildError, GuestError) as error:
        say(f"instructions: {error}")
        return 1
    complaints = [line for document in documents for line in complaints_about(document)]
    for line in complaints:
        say(f"instructions: {line}")
    return 1 if complaints else 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; ends the program with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/instructions",
        description="Count the instructions that a load takes with an accelerator off and on, in a guest.",
        epilog="Pairs and length, by the guest's clock, are each benchmark's own unless given here. "
        f"Ends with 1 when the runs of one arm lie more than {LIMIT:.0%} apart.",
    )
    add_common_options(parser)
    parser.add_argument("--kernel", choices=KERNELS, default=DEFAULT_KERNEL, help="the guest's kernel")
    options = parser.parse_args(words)
    complaint = complaint_about_names(options.names, BY_NAME)
    if complaint:
        parser.error(complaint)
    return options


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the result of each benchmark, kept and shown."""
    image = Builder(DIRECTORY).provide(Recipe(KERNELS[options.kernel]))
    mesh_load.build()
    with counting_guest(image) as guest:
        for name in options.names or BY_NAME:
            document = count(guest, BY_NAME[name], options.pairs, options.seconds)
            keep(document, f"{name}.json", options.json)
            show(document)
            yield document
    say(f"report: {write_report(RESULTS, [*benchmarks.BY_NAME, *BY_NAME])}")


@contextlib.contextmanager
def counting_guest(image: Image) -> Iterator[Guest]:
    """Boot a guest that counts, with what it runs copied in. Raises GuestError."""
    say("booting a guest that counts")
    with temporary_directory("counting") as directory:
        guest = Guest.start_counting(image, Path(directory) / "guest")
        try:
            for source, target in COPIED.items():
                guest.copy(mesh_load.ROOT / source, f"{GUEST_ROOT}/{target}")
            yield guest
        finally:
            guest.stop()


def count(guest: Guest, benchmark: Counting, pairs: int | None, seconds: float | None) -> dict[str, Any]:
    """Run a benchmark in the guest, as often and as long as given or as it says itself; return its result."""
    settings = [f"PYTHONPATH={GUEST_ROOT}:{GUEST_ROOT}/module_utils", "PYTHONDONTWRITEBYTECODE=1"]
    words = [benchmark.name, str(pairs or benchmark.pairs), str(seconds or benchmark.seconds)]
    say(f"{benchmark.title}, in Linux {guest.call(['uname', '-r']).strip()}")
    said = guest.call(
        ["env", *settings, "python3", "-m", "tests.bench.counting.in_guest", *words],
        seconds=RUN_SECONDS,
        errors=None,
    )
    document: dict[str, Any] = json.loads(said)
    return document


def show(document: Mapping[str, Any]) -> None:
    """Tell the counts of every case, how far the runs lie apart, and the ratio."""
    for case in document["cases"]:
        arms = "  ".join(
            f"{arm} {figures['instructions']:,.0f} (spread {case['spread'][arm]['instructions']:.2%})"
            for arm, figures in case["arms"].items()
        )
        ratios = "  ".join(f"{figure} x{ratio:.3f}" for figure, ratio in case["ratio"].items())
        say(f"  {case['label']:36} {arms}  {ratios}")


def complaints_about(document: Mapping[str, Any]) -> list[str]:
    """Return a line for every arm whose runs lie further apart than counts may."""
    return [
        f"{document['name']}, {case['label']}: the runs of arm {arm} lie {spread['instructions']:.2%} apart,"
        f" which is more than {LIMIT:.0%}: give them longer (--seconds), on a guest that does nothing else"
        for case in document["cases"]
        for arm, spread in case["spread"].items()
        if spread["instructions"] > LIMIT
    ]
