"""The two arms of a test: the same programs do the same, with sockops off and with it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from meshaccel.model import Mode
from tests.kernel.observation import Counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshaccel.accelerators.sockops.service import Sockops

Result = TypeVar("Result")

STREAM_SHARE = 0.05
"""What is asked of streams: once their reader is behind, they go by TCP, for that time or for good."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What an arm came to, and what sockops counted meanwhile."""

    result: Result
    counted: Mapping[str, int]

    @property
    def redirected_bytes(self) -> int:
        """Bytes that went from socket to socket."""
        return self.counted.get("redirected_bytes", 0)

    @property
    def tracked_bytes(self) -> int:
        """Bytes of paired connections, whichever way they went."""
        return self.redirected_bytes + self.counted.get("tcp_bytes", 0)


def assert_same(
    node: Sockops, scenario: Callable[[], Result], settle: Callable[[], None] = lambda: None
) -> Outcome[Result]:
    """Run a scenario with sockops off, then on; the results have to be equal. See `compare`."""
    off, on = compare(node, scenario, settle)
    assert on.result == off.result, "with sockops the programs do not do what they do without"
    return on


def compare(
    node: Sockops, scenario: Callable[[], Result], settle: Callable[[], None] = lambda: None
) -> tuple[Outcome[Result], Outcome[Result]]:
    """Run a scenario with sockops off, then on; return what came of both.

    A scenario begins and ends with no connection open; `settle` waits for those that programs keep
    open for a while, so that no connection of one arm lives into the other.
    """
    off = _run(node, Mode.OFF, scenario, settle)
    on = _run(node, Mode.ON, scenario, settle)
    assert off.counted == {}, "sockops took part while it was off"
    return off, on


def assert_accelerated(outcome: Outcome[Result], moved: int, share: float = 0.5) -> None:
    """Of a scenario that moved at least so many bytes, a share has to have gone from socket to socket.

    `moved` keeps connections that were not paired, whose bytes sockops does not see, from not counting.
    """
    assert outcome.redirected_bytes > share * max(moved, outcome.tracked_bytes), outcome.counted


def _run(
    node: Sockops, mode: Mode, scenario: Callable[[], Result], settle: Callable[[], None]
) -> Outcome[Result]:
    settle()
    node.switch(mode)
    counted = Counted(node)
    result = scenario()
    settle()
    return Outcome(result, counted.all())
