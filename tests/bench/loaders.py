"""What the loader bcc costs against libbpf: seconds and memory of `meshaccel restore`, in turn in one guest.

`./run bench-loaders`. Under emulation the seconds are many times those of a processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from meshaccel.accelerators.sockops import NAME
from meshaccel.accelerators.sockops.desired import (
    DEFAULT_MAXIMUM_CONNECTIONS,
    DEFAULT_RECEIVE_MEMORY_LIMIT,
    CgroupWish,
    Desired,
)
from meshaccel.bpf.loaders import Loader
from meshaccel.model import Mode
from meshaccel.paths import NodePaths
from tests.support.processes import termination_as_exit
from tests.vm.build import DIRECTORY, GUESTS, Builder
from tests.vm.guest import Guest, running
from tests.vm.recipe import DEFAULT_KERNEL, Recipe

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PAIRS = 3
SECONDS = 900.0
PATHS = NodePaths()
RESTORE = (
    f"import sys; sys.path.insert(0, '{PATHS.release}'); "
    "from meshaccel.command import main; sys.exit(main(['restore']))"
)
#: Runs a command; its memory is the most that one process had, of it and of those below it.
MEASURE = """
import json, os, subprocess, sys, time
begin = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.monotonic() - begin
print(json.dumps([seconds, usage.ru_maxrss]))
sys.exit(status != 0)
"""


@dataclass(frozen=True)
class Run:
    """One restore. The memory is in kilobytes."""

    seconds: float
    kilobytes: int


def main() -> None:
    """Measure and print a table of medians, with the least and the most."""
    parser = argparse.ArgumentParser(prog="./run bench-loaders", description=__doc__)
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="how often each is measured")
    pairs = parser.parse_args().pairs
    image = Builder(DIRECTORY).provide(Recipe.of(DEFAULT_KERNEL, "bcc"))
    with termination_as_exit(), running(image, GUESTS / "bench-loaders") as guest:
        install(guest)
        runs = measure(guest, pairs)
    print("| | " + " | ".join(loader.value for loader in runs) + " |\n|---|---|---|")
    print(row("seconds", {loader: [run.seconds for run in each] for loader, each in runs.items()}))
    print(row("MB", {loader: [run.kilobytes / 1000 for run in each] for loader, each in runs.items()}))


def install(guest: Guest) -> None:
    """Lay the release out as a node has it."""
    guest.copy(ROOT / "module_utils" / "meshaccel", f"{PATHS.release}/meshaccel")
    guest.copy(ROOT / "build" / "bpf", f"{PATHS.release}/bpf")


def measure(guest: Guest, pairs: int) -> dict[Loader, list[Run]]:
    """Restore by each loader in turn, from nothing; the first of each fills the caches and does not count."""
    runs: dict[Loader, list[Run]] = {loader: [] for loader in Loader}
    for _ in range(pairs + 1):
        for loader, found in runs.items():
            found.append(restore(guest, loader))
            print(f"{loader.value}: {found[-1]}", file=sys.stderr)
    return {loader: found[1:] for loader, found in runs.items()}


def restore(guest: Guest, loader: Loader) -> Run:
    """Load by this loader where nothing is loaded."""
    wish = Desired(
        present=True,
        mode=Mode.ON,
        cgroups=(CgroupWish("bench.slice", ("bench.slice",), Mode.ON, ()),),
        maximum_connections=DEFAULT_MAXIMUM_CONNECTIONS,
        receive_memory_limit=DEFAULT_RECEIVE_MEMORY_LIMIT,
        adopt_existing=False,
        loader=loader,
    )
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / f"{NAME}.json").write_bytes(wish.document())
        guest.copy(Path(directory), PATHS.configuration)
    guest.call(["rm", "-rf", PATHS.pins])
    said = guest.call(["python3", "-c", MEASURE, "python3", "-I", "-c", RESTORE], seconds=SECONDS)
    return Run(*json.loads(said))


def row(what: str, figures: dict[Loader, list[float]]) -> str:
    """Return a line of the table."""
    cells = [f"{statistics.median(each):.3g} ({min(each):.3g}-{max(each):.3g})" for each in figures.values()]
    return f"| {what} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
