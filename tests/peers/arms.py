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


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What both arms came to, and what sockops counted in the accelerated one."""

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
    """Run a scenario with sockops off, then on; the results have to be equal.

    A scenario begins and ends with no connection open; `settle` waits for those that programs keep
    open for a while, so that no connection of one arm lives into the other.
    """
    off, counted_off = _run(node, Mode.OFF, scenario, settle)
    on, counted_on = _run(node, Mode.ON, scenario, settle)
    assert counted_off == {}, "sockops took part while it was off"
    assert on == off, "with sockops the programs do not do what they do without"
    return Outcome(on, counted_on)


def assert_accelerated(outcome: Outcome[Result], moved: int, share: float = 0.5) -> None:
    """Of a scenario that moved at least so many bytes, a share has to have gone from socket to socket.

    `moved` keeps connections that were not paired, whose bytes sockops does not see, from not counting.
    """
    assert outcome.redirected_bytes > share * max(moved, outcome.tracked_bytes), outcome.counted


def _run(
    node: Sockops, mode: Mode, scenario: Callable[[], Result], settle: Callable[[], None]
) -> tuple[Result, dict[str, int]]:
    settle()
    node.switch(mode)
    counted = Counted(node)
    result = scenario()
    settle()
    return result, counted.all()
