"""cgroup2 directories of a test."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

NAME_PREFIX = "meshaccel-test-"
REMOVAL_SECONDS = 5.0
RETRY_SECONDS = 0.02
MICROSECONDS_PER_SECOND = 1_000_000
_numbers = itertools.count()


@cache
def cgroup2_mount() -> Path:
    """Return where cgroup2 is mounted; raises FileNotFoundError when it is mounted nowhere."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, file_system = line.partition(" - ")
        if file_system.split()[0] == "cgroup2":
            return Path(mount.split()[4])
    raise FileNotFoundError("no cgroup2 mounted: mount -t cgroup2 none DIRECTORY")


class TestCgroup:
    """A cgroup made on entering the context and removed, with its processes, on leaving it.

    A cgroup made with a parent lies in the parent's directory; leave it before the parent.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(self, label: str, parent: TestCgroup | None = None) -> None:
        """Choose the name; `label` tells the cgroups of one test apart."""
        unique = f"{NAME_PREFIX}{os.getpid()}-{next(_numbers)}-{label}"
        self.path: Path = cgroup2_mount() / unique if parent is None else parent.path / label

    def __enter__(self) -> Self:
        self.path.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        remove_cgroup(self.path)

    @property
    def relative_path(self) -> str:
        """The path below the cgroup2 mount, the form that `sockops_cgroups` takes."""
        return str(self.path.relative_to(cgroup2_mount()))

    @property
    def identifier(self) -> int:
        """The id that BPF programs see, the inode number of the directory."""
        return self.path.stat().st_ino

    def process_ids(self) -> list[int]:
        """Return the processes in this cgroup itself, not in those below it."""
        return _process_ids(self.path)

    def cpu_seconds(self) -> float:
        """Return the processor time used in this cgroup and below, by ended processes too.

        `cpu.stat` counts this in every cgroup2, whether or not the cpu controller is enabled.
        """
        for line in (self.path / "cpu.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / MICROSECONDS_PER_SECOND
        raise ValueError(f"{self.path}/cpu.stat: no usage_usec")


def remove_cgroup(path: Path) -> None:
    """Kill what runs in a cgroup and below, and remove the directories.

    Raises OSError when the kernel still holds one of them after some seconds.
    """
    deadline = time.monotonic() + REMOVAL_SECONDS
    while path.exists():
        directories = [path, *sorted(below for below in path.rglob("*") if below.is_dir())]
        for directory in directories:
            _kill_processes(directory)
        try:
            for directory in reversed(directories):
                directory.rmdir()
        except OSError:
            # A killed process keeps its cgroup busy until it has been reaped.
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _process_ids(path: Path) -> list[int]:
    try:
        text = (path / "cgroup.procs").read_text(encoding="ascii")
    except OSError as error:
        # The processes of a threaded cgroup stand in its domain's file, which is read as well.
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
    return [int(word) for word in text.split()]


def _kill_processes(path: Path) -> None:
    for process_id in _process_ids(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
