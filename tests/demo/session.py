"""One demonstration at a time, and nothing left of it: signals, a lock, and a note for the next one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tests.demo.accelerator import REMOVE, run_playbook
from tests.support.cgroups import NAME_PREFIX, cgroup2_mount, remove_cgroup
from tests.support.leftovers import remove_leftovers
from tests.support.namespaces import NAMESPACE_DIRECTORY, remove_namespace

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAKE_DOWN_SECONDS = 120.0
READY = b"1"


class AlreadyRunning(RuntimeError):
    """Another demonstration of this checkout is under way or was kept."""


class Session:
    """The lock of a checkout's demonstrations and the note of what is up, in the folder of results."""

    def __init__(self, directory: Path) -> None:
        """Use `directory` for the lock and the note."""
        self._lock_path = directory / "lock"
        self._note_path = directory / "session.json"

    @contextlib.contextmanager
    def open(self, report: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock, take down what a killed run left before, and what this one lost track of after.

        Raises AlreadyRunning.
        """
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_path.open("w") as lock:
            if not _lock(lock.fileno()):
                raise AlreadyRunning("a demonstration is running or was kept: `./run demo --down` ends it")
            self.recover(report)
            self.note_accelerated(False)
            try:
                yield
            finally:
                remove_made_by(os.getpid())
                # Kept when the accelerator could not be taken off, for the next attempt.
                if not self._read_note()["accelerated"]:
                    self._note_path.unlink()

    def note_accelerated(self, accelerated: bool) -> None:
        """Keep on disk whether the accelerator of this machine is this demonstration's to take off."""
        note = {"process": os.getpid(), "accelerated": accelerated}
        temporary = self._note_path.with_suffix(".new")
        temporary.write_text(json.dumps(note), encoding="utf-8")
        temporary.replace(self._note_path)

    def recover(self, report: Callable[[str], None]) -> bool:
        """Take down what a demonstration that was killed has left; returns whether there was any."""
        if not self._note_path.exists():
            return False
        report("taking down what a killed demonstration left")
        if self._read_note()["accelerated"]:
            run_playbook(REMOVE, report)
        remove_leftovers()
        self._note_path.unlink()
        return True

    def take_down(self, report: Callable[[str], None]) -> bool:
        """End a running or kept demonstration, or what is left of one; returns whether there was any.

        Raises TimeoutError when it does not end.
        """
        if not self._lock_path.exists():
            return False
        with self._lock_path.open("r+") as lock:
            running = not _lock(lock.fileno())
            if running:
                self._end_holder(lock.fileno())
            return self.recover(report) or running

    def _read_note(self) -> dict[str, int]:
        note: dict[str, int] = json.loads(self._note_path.read_text(encoding="utf-8"))
        return note

    def _end_holder(self, descriptor: int) -> None:
        process = self._read_note()["process"]
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + TAKE_DOWN_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"process {process} still holds the demonstration after {TAKE_DOWN_SECONDS} s"
                )
            time.sleep(0.1)


@contextlib.contextmanager
def signals_as_exit() -> Iterator[None]:
    """Turn the first signal to end into SystemExit, and ignore further ones while the contexts clean up."""

    def leave(number: int, _frame: FrameType | None) -> None:
        for other in ENDING_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def remove_made_by(process_id: int) -> None:
    """Remove the namespaces and cgroups whose names carry a process id.

    A signal between the making of one and its entry into a context leaves it without an owner.
    """
    prefix = f"{NAME_PREFIX}{process_id}-*"
    for path in cgroup2_mount().glob(prefix):
        remove_cgroup(path)
    for path in NAMESPACE_DIRECTORY.glob(prefix):
        remove_namespace(path.name)


def run_in_background(demonstrate: Callable[[Callable[[], None]], int], log: Path) -> int:
    """Run `demonstrate` in a process that outlives this one; returns when it says it is ready, or ended.

    `demonstrate` gets a function that says so and then waits for a signal to end, its output in `log`.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        return demonstrate(lambda: _hold(writing, log))
    os.close(writing)
    # A Ctrl-C here is meant for the demonstration, which is in a session of its own.
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    if os.read(reading, len(READY)) == READY:
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _hold(descriptor: int, log: Path) -> None:
    sys.stdout.flush()
    with log.open("w") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    os.write(descriptor, READY)
    os.close(descriptor)
    while True:
        signal.pause()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
