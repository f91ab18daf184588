"""`./run demo`: measure a real mesh, accelerate it with the playbooks, measure again, take it all back."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.demo.accelerator import PlaybookFailed
from tests.demo.demonstration import STEPS, Demonstration, Plan
from tests.demo.progress import Progress
from tests.demo.session import AlreadyRunning, Session, run_in_background, signals_as_exit
from tests.support.processes import ProcessError

DIRECTORY = Path(__file__).parents[2] / "build" / "demo"
EXPECTED_ERRORS = (AlreadyRunning, PlaybookFailed, ProcessError, TimeoutError)


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    options = parse_options()
    if options.down:
        return take_down()
    plan = Plan(options.before_rounds, options.rounds, options.seconds)
    if os.environ.get("KEEP", "0") in ("", "0"):
        return demonstrate(plan)
    return run_in_background(lambda hold: demonstrate(plan, hold), DIRECTORY / "kept.log")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./run demo",
        description="Measure a real mesh, accelerate it with the playbooks, measure again, take it all back.",
        epilog="KEEP=1 ./run demo leaves the accelerated mesh up to look around in.",
    )
    parser.add_argument("--down", action="store_true", help="take down what is up or left of a demonstration")
    parser.add_argument("--rounds", type=_positive, default=5, help="pairs of each workload (%(default)s)")
    parser.add_argument(
        "--before-rounds", type=_positive, default=3, help="pairs before the converge (%(default)s)"
    )
    parser.add_argument("--seconds", type=_positive, default=2, help="length of a run (%(default)s)")
    return parser.parse_args()


def demonstrate(plan: Plan, hold: Callable[[], None] | None = None) -> int:
    """Run the whole demonstration; with `hold`, call it before anything is taken down."""
    progress = Progress(STEPS)
    try:
        session = Session(DIRECTORY)
        with signals_as_exit(), session.open(progress.running):
            good = Demonstration(plan, DIRECTORY, progress, session).run(hold)
    except EXPECTED_ERRORS as error:
        progress.say(f"demo: {error}")
        return 1
    except SystemExit:
        progress.say(f"[{progress.elapsed:5.1f} s] ended by a signal, everything is down")
        raise
    progress.say(f"[{progress.elapsed:5.1f} s] done, everything is down")
    return 0 if good else 1


def take_down() -> int:
    """End what is up or left of a demonstration."""
    try:
        found = Session(DIRECTORY).take_down(lambda line: print(f"  {line}"))
    except EXPECTED_ERRORS as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print("the demonstration is down" if found else "no demonstration is up")
    return 0


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError(word)
    return number


if __name__ == "__main__":
    sys.exit(main())
