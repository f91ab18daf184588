"""Work beside a test, whose error becomes the test's."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Outcome = TypeVar("Outcome")
SECONDS = 60.0


@contextlib.contextmanager
def repeating(work: Callable[[], Outcome]) -> Iterator[Sequence[Outcome]]:
    """Do something again and again meanwhile; yields what came of each round, as they end.

    The first error ends the rounds, and is raised when the context ends.
    """
    stop = threading.Event()
    outcomes: list[Outcome] = []

    def repeat() -> None:
        while not stop.is_set():
            outcomes.append(work())

    with ThreadPoolExecutor(1) as thread:
        repeated = thread.submit(repeat)
        try:
            yield outcomes
        finally:
            stop.set()
        repeated.result(SECONDS)
