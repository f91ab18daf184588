# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Work in processes of its own inside a cgroup, ended in any case.

A socket belongs to the cgroup its process is in when it is made, so each arm
needs processes that enter the cgroup first.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import FrameType
from typing import TypeVar

from ..errors import MeshaccelError
from ..system import temporary_cgroup
from .exchange import ProbeFailed

Answer = TypeVar("Answer")
#: include/uapi/linux/prctl.h.
SET_PARENT_DEATH_SIGNAL = 1
TERMINATING = (signal.SIGTERM, signal.SIGHUP)
HELD = (*TERMINATING, signal.SIGINT)
#: Does its part in the child and returns what the parent is to get; ``send`` gives more.
Work = Callable[[Callable[[object], None]], object]


class Worker:
    """A child process at work."""

    def __init__(self, what: str, process: multiprocessing.process.BaseProcess, answers: Connection) -> None:
        """Binds a started process; ``what`` names it in errors."""
        self._what = what
        self._process = process
        self._answers = answers

    def receive(self, kind: type[Answer], seconds: float) -> Answer:
        """Returns the next thing the worker sends, which is of this kind.

        Raises what it raised, or ProbeFailed when it ends or is silent for so long.
        """
        if not self._answers.poll(seconds):
            raise self._failure(f"nothing after {seconds:.1f} s")
        try:
            answer = self._answers.recv()
        except EOFError as error:
            self._process.join()
            raise self._failure(f"its process ended with exit code {self._process.exitcode}") from error
        if isinstance(answer, _Failure):
            raise ProbeFailed(wanted=answer.wanted, found=answer.found, remedy=answer.remedy)
        if not isinstance(answer, kind):
            raise TypeError(f"{self._what} sent {answer!r}, not a {kind.__name__}")
        return answer

    def _failure(self, found: str) -> ProbeFailed:
        return ProbeFailed(
            wanted=f"a result from {self._what}",
            found=found,
            remedy="see whether the node is overloaded, then run again, with a longer duration if need be",
        )


class _Failure:
    """An error on its way to the parent."""

    def __init__(self, error: MeshaccelError) -> None:
        self.wanted, self.found, self.remedy = error.wanted, error.found, error.remedy


@contextmanager
def worker(what: str, cgroup: str | None, work: Work) -> Iterator[Worker]:
    """Runs ``work`` in a process inside a cgroup (None: this one's own); kills it at the end."""
    context = multiprocessing.get_context("fork")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(os.getpid(), cgroup, work, sender), daemon=True)
    try:
        with signals_held():
            process.start()
        sender.close()
        yield Worker(what, process, answers)
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        answers.close()


def _run(parent: int, cgroup: str | None, work: Work, sender: Connection) -> None:
    die_with(parent)
    use_plain_signals()
    try:
        if cgroup is not None:
            join_cgroup(cgroup)
        sender.send(work(sender.send))
    except MeshaccelError as error:
        sender.send(_Failure(error))
    except OSError as error:
        sender.send(
            _Failure(
                ProbeFailed(
                    wanted="the measurement to go through",
                    found=str(error),
                    remedy="see whether the endpoint was restarted or the node is short of resources",
                )
            )
        )


def use_plain_signals() -> None:
    """Undoes the parent's handlers; Ctrl-C is the parent's to handle, which then ends this process."""
    for number in TERMINATING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


@contextmanager
def signals_held() -> Iterator[None]:
    """Puts signals off meanwhile: one between fork and the record of the child would lose the child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def join_cgroup(path: str) -> None:
    """Enters a cgroup; raises ProbeFailed when the kernel does not let a process in."""
    try:
        temporary_cgroup.enter(path)
    except OSError as error:
        raise ProbeFailed(
            wanted=f"a process in the cgroup {path}",
            found=str(error),
            remedy="name a cgroup that may have child cgroups with processes: neither threaded nor frozen",
        ) from error


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent dies, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the call.
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into SystemExit meanwhile, so that the contexts inside clean up.

    Only the main thread may do that; elsewhere its owner has to.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in TERMINATING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
