"""The system calls of a run: those that change a node, and those that the kernel may refuse."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from tests.support.system_calls import SystemCall, traced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMES = (
    "bpf",
    "mount",
    "umount2",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "openat",
)
#: These commands of bpf() look; any other makes or changes something.
LOOKING = (
    "BPF_BTF_GET",
    "BPF_MAP_GET",
    "BPF_MAP_LOOKUP",
    "BPF_OBJ_GET",
    "BPF_PROG_GET",
    "BPF_PROG_QUERY",
)
#: These make or change what goes with the descriptors of the process.
PASSING = (
    "BPF_BTF_LOAD",
    "BPF_ITER_CREATE",
    "BPF_MAP_CREATE",
    "BPF_MAP_FREEZE",
    "BPF_PROG_BIND_MAP",
    "BPF_PROG_LOAD",
)
CREATING = "O_CREAT"
FAILED = " = -1 "


class Watched:
    """Has the system calls of one run, once that has ended; some of them with faults."""

    def __init__(self, *faults: str) -> None:
        """Choose the faults; see SystemCall."""
        self._faults = faults
        self.calls: Sequence[SystemCall] = ()

    @contextlib.contextmanager
    def beside(self, process_id: int) -> Iterator[None]:
        """Watch the process of the run meanwhile."""
        with traced(process_id, NAMES, *self._faults) as trace:
            yield
            self.calls = trace.calls()


def changing_calls(watched: Watched) -> list[SystemCall]:
    """Return calls that change what is there after the process has gone.

    Of several in a row that do the same to one thing after another, these are the first, one in the
    middle and the last.
    """
    calls = [call for call in watched.calls if changes(call)]
    rows = [list(row) for _, row in itertools.groupby(calls, what)]
    return [row[place] for row in rows for place in sorted({0, len(row) // 2, len(row) - 1})]


def what(call: SystemCall) -> str:
    """Return what a call does, without to what."""
    return call.words.partition(",")[0] if call.name == "bpf" else call.name


def refusable_calls(watched: Watched) -> list[SystemCall]:
    """Return the calls for which the kernel may have no memory, or no permission."""
    return [call for call in watched.calls if call.name == "bpf" and not call.words.startswith(LOOKING)]


def changes(call: SystemCall) -> bool:
    """Whether a call changes what is there after its process has gone."""
    if FAILED in call.words:
        return False
    if call.name == "bpf":
        return not call.words.startswith(LOOKING + PASSING)
    return call.name != "openat" or CREATING in call.words
