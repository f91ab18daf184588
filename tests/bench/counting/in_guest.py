"""`python3 -m tests.bench.counting.in_guest NAME PAIRS SECONDS`, in a guest: prints the result as JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from tests.bench.counting.benchmarks import BY_NAME
from tests.bench.counting.clock import check_clock

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLING_SECONDS = 0.5


def main(words: Sequence[str]) -> None:
    """Run one benchmark. Raises NotCountedError, NotAsPromisedError and what the accelerator raises."""
    name, pairs, seconds = words
    check_clock()
    print(json.dumps(BY_NAME[name].run(int(pairs), float(seconds), report).document()))


def report(message: str) -> None:
    """Say how far it is; standard output is for the result."""
    print(f"  {message}", file=sys.stderr, flush=True)
    # Until the ssh server has passed it on; its instructions would be counted in the next run.
    time.sleep(SETTLING_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
