"""The system calls of a process, and faults in one of them, by strace.

strace counts the calls of each name by itself, so a call is known by its name and its ordinal.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.directories import temporary_directory
from tests.support.processes import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CALL = re.compile(r"(\w+)\((.*)")
ATTACHED = "attached"
SECONDS = 10.0


@dataclass(frozen=True)
class SystemCall:
    """One call of a process. The first of each name has the ordinal 1."""

    name: str
    ordinal: int
    #: As strace writes it: arguments and result.
    words: str

    def fails(self, error: str) -> str:
        """Return the fault of this call not being made, and of its answering an errno's name instead."""
        return f"inject={self.name}:error={error}:when={self.ordinal}"

    def is_the_last(self) -> str:
        """Return the fault of the process being killed instead of this call."""
        return f"inject={self.name}:signal=KILL:when={self.ordinal}"

    def is_interrupted(self) -> str:
        """Return the fault of the process getting SIGINT, as by Ctrl-C, at this call, which is made."""
        return f"inject={self.name}:signal=INT:when={self.ordinal}"


@dataclass(frozen=True)
class Trace:
    """What strace has written of a process so far."""

    log: Path

    def calls(self) -> list[SystemCall]:
        """Return the calls in their order."""
        counted: Counter[str] = Counter()
        calls = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            found = CALL.match(line)
            if found:
                counted[found[1]] += 1
                calls.append(SystemCall(found[1], counted[found[1]], found[2]))
        return calls


@contextlib.contextmanager
def traced(process_id: int, names: Iterable[str], *faults: str) -> Iterator[Trace]:
    """Have strace watch calls of these names by a process meanwhile, with faults in some of them."""
    with temporary_directory("strace") as directory:
        log = Path(directory) / "log"
        tampering = [word for fault in faults for word in ("-e", fault)]
        watching = ["-p", str(process_id), "-o", str(log), "-e", f"trace={','.join(names)}"]
        command = ["strace", *watching, *tampering]
        with ManagedProcess(command) as strace:
            strace.wait_until(
                lambda: ATTACHED in strace.error_path.read_text(encoding="utf-8"), "strace", SECONDS
            )
            yield Trace(log)
