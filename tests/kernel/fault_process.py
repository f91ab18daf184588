"""A run of sockops in a process of its own, which may be killed, interrupted or refused something."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar
from unittest import mock

from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.engine import BeforeAction
from meshaccel.errors import ApplyFailed, MeshaccelError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from meshaccel.model import Action

Words = ParamSpec("Words")
Seen = TypeVar("Seen")
#: Converges; calls the hook before each action, as the engine does.
Run = Callable[[BeforeAction], object]
#: Called before the step of a number; steps are the actions, and the look at the node after them.
AtStep = Callable[[int], None]
#: Called in the new process, before anything else.
Prelude = Callable[[], None]
#: Surrounds the run from outside; given the id of its process, before that does anything.
Beside = Callable[[int], AbstractContextManager[object]]

#: Not spawned: a process of its own costs milliseconds then, and there are hundreds of them.
PROCESSES = multiprocessing.get_context("fork")
GO = "go"
LOOK_AGAIN = "look at the node again"
SUCCEEDED = 0
FAILED = 3
INTERRUPTED = 4
SECONDS = 30.0


@dataclass(frozen=True)
class Ending:
    """How a run came to its end; `exit_code` is minus a signal's number when that was its end."""

    exit_code: int
    #: What it was about to do, or had done; the last may not have been begun.
    steps: tuple[str, ...]
    #: The words of the error that an operator would have seen; empty when there was none.
    error: str
    #: What could not be undone after that error.
    undo_errors: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return self.exit_code == -signal.SIGKILL

    @property
    def place(self) -> str:
        """Where it was, for the message of a failed test."""
        return f"the run ended with {self.exit_code} at step {len(self.steps)}, {self.steps[-1:]}"

    def has_begun(self, kinds: tuple[str, ...]) -> bool:
        """Whether an action of one of these kinds was begun."""
        return any(step.startswith(kinds) for step in self.steps)

    def has_done(self, kinds: tuple[str, ...]) -> bool:
        """Whether an action of one of these kinds was done."""
        return any(step.startswith(kinds) for step in self.steps[:-1])


def go_on(_: int) -> None:
    """At no step anything happens."""


def nothing() -> None:
    """No preparation."""


def alone(_: int) -> AbstractContextManager[object]:
    """Nothing surrounds the run."""
    return contextlib.nullcontext()


def run_apart(
    run: Run, at_step: AtStep = go_on, prelude: Prelude = nothing, beside: Beside = alone
) -> Ending:
    """Carry out a run in a process of its own and wait for its end."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=carry_out, args=(run, at_step, prelude, theirs))
    with ours:
        with theirs:
            process.start()
        assert process.pid is not None
        try:
            with beside(process.pid):
                ours.send(GO)
                messages = received_messages(ours)
                process.join(SECONDS)
        finally:
            process.kill()
            process.join()
    assert process.exitcode is not None
    steps = tuple(message for message in messages if isinstance(message, str))
    errors = [message for message in messages if isinstance(message, tuple)]
    error, undo_errors = errors[0] if errors else ("", ())
    return Ending(process.exitcode, steps, error, undo_errors)


def received_messages(channel: Connection) -> list[object]:
    """Return what was sent until the process at the other end was no more."""
    messages: list[object] = []
    while True:
        if not channel.poll(SECONDS):
            raise TimeoutError(f"the run said nothing for {SECONDS} s after {messages[-1:]}")
        try:
            messages.append(channel.recv())
        except (EOFError, ConnectionResetError):
            return messages


def carry_out(run: Run, at_step: AtStep, prelude: Prelude, channel: Connection) -> NoReturn:
    """Do all that the new process does; it tells the channel its steps and its error."""
    numbers = itertools.count()

    def step(name: str) -> None:
        channel.send(name)
        at_step(next(numbers))

    def before_action(action: Action) -> None:
        step(f"{action.kind}: {action.summary}")

    channel.recv()
    prelude()
    try:
        with mock.patch.object(Sockops, "observe", told_of_second(Sockops.observe, lambda: step(LOOK_AGAIN))):
            run(before_action)
    except (MeshaccelError, OSError) as error:
        channel.send((str(error), error.undo_errors if isinstance(error, ApplyFailed) else ()))
        os._exit(FAILED)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    os._exit(SUCCEEDED)


def told_of_second(observe: Callable[Words, Seen], tell: Callable[[], None]) -> Callable[Words, Seen]:
    """Return a function that calls `tell` before its second call.

    That is the engine's own look after the last action; a later one is no part of applying a plan.
    """
    looks = itertools.count()

    def observing(*arguments: Words.args, **named: Words.kwargs) -> Seen:
        if next(looks) == 1:
            tell()
        return observe(*arguments, **named)

    return observing


def signal_at(wanted: int, number: signal.Signals) -> AtStep:
    """Have a run get a signal before the step of a number."""

    def at_step(current: int) -> None:
        if current == wanted:
            os.kill(os.getpid(), number)

    return at_step
