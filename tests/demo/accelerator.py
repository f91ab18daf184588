"""The accelerator, switched on for a mesh and off again by the project's own playbooks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from meshaccel.paths import NodePaths
from tests.demo.results import ByteCounts, PlaybookRun
from tests.support import bpftool, installation
from tests.support.processes import last_lines, run

ROOT = Path(__file__).parents[2]
CONVERGE = "playbooks/site.yml"
REMOVE = "playbooks/remove.yml"
PLAYBOOK_SECONDS = 90
KILL_SECONDS = 15
FREEING_SECONDS = 3.0
"""The kernel frees BPF objects some time after their last user is gone."""

_RECAP = re.compile(r"^\S+\s+: ok=\d+\s+changed=(\d+)\s.*failed=\d+")


class PlaybookFailed(RuntimeError):
    """ansible-playbook ended with an error or took too long."""


class Accelerator:
    """sockops for some cgroups, while the context is entered.

    Nothing is switched on by entering; on leaving, whatever happened, `playbooks/remove.yml` takes off
    what a converge may have begun.
    """

    def __init__(
        self,
        cgroups: Sequence[str],
        directory: Path,
        report: Callable[[str], None],
        note_accelerated: Callable[[bool], None],
    ) -> None:
        """Prepare for these cgroups; the variables of the play go to a file in `directory`.

        `report` gets what Ansible says, `note_accelerated` whether there is something to take off.
        """
        self.cgroups = tuple(cgroups)
        self.variables = directory / "sockops.json"
        self._report = report
        self._note_accelerated = note_accelerated
        self._begun = False
        self._own_objects: frozenset[tuple[str, int]] = frozenset()

    def __enter__(self) -> Self:
        present = installed_paths()
        if present:
            raise PlaybookFailed(
                f"this machine has meshaccel already ({', '.join(present)}) and the demonstration "
                f"would replace its settings; take it off with: ansible-playbook {REMOVE}"
            )
        variables = {"sockops_state": "present", "sockops_mode": "on", "sockops_cgroups": self.cgroups}
        self.variables.write_text(json.dumps(variables, indent=2) + "\n", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._begun:
            self.remove()

    @property
    def command_line(self) -> str:
        """What a person would type for a converge."""
        return f"ansible-playbook -i inventories/local {CONVERGE} -e @{_from_root(self.variables)}"

    def converge(self) -> PlaybookRun:
        """Run `playbooks/site.yml` for the cgroups; raises PlaybookFailed."""
        self._begun = True
        self._note_accelerated(True)
        installation.claim()
        result = run_playbook(CONVERGE, self._report, ["-e", f"@{self.variables}"])
        self._own_objects = _own_objects()
        return result

    def byte_counts(self) -> ByteCounts:
        """Return what the cgroups have sent since they were opted in."""
        status = json.loads(run([NodePaths().command, "status", "--json"]))
        counters = [status["sockops"]["cgroups"][path]["counters"] for path in self.cgroups]
        return ByteCounts(
            redirected=sum(counter["redirected_bytes"] for counter in counters),
            tcp=sum(counter["tcp_bytes"] for counter in counters),
        )

    def remove(self) -> None:
        """Run `playbooks/remove.yml`; raises PlaybookFailed."""
        try:
            run_playbook(REMOVE, self._report)
        finally:
            # A signal ends the waiting for a play, not the play.
            if not installed_paths():
                self._begun = False
                self._note_accelerated(False)
                installation.release()

    def left_behind(self) -> list[str]:
        """Return what is still there of the files, pins and BPF objects of the converge."""
        deadline = time.monotonic() + FREEING_SECONDS
        while (left := self._objects_left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [*installed_paths(), *_existing(NodePaths().configuration), *left]

    def _objects_left(self) -> list[str]:
        now = bpftool.snapshot()
        present = {("program", number) for number in now.programs} | {("map", number) for number in now.maps}
        return [f"BPF {kind} {number}" for kind, number in sorted(self._own_objects & present)]


def installed_paths() -> list[str]:
    """Return those of the product's places on this machine that exist when it is installed."""
    paths = NodePaths()
    return _existing(paths.desired("sockops"), paths.library, paths.pins, paths.command)


def run_playbook(playbook: str, report: Callable[[str], None], options: Sequence[str] = ()) -> PlaybookRun:
    """Run a playbook against this machine, reporting each line it writes.

    Raises PlaybookFailed when it fails or is not done after PLAYBOOK_SECONDS.
    """
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", "inventories/local", playbook, *options]
    begun = time.monotonic()
    lines: list[str] = []
    with _own_session(command) as process:
        assert process.stdout is not None  # it was opened with a pipe
        for line in process.stdout:
            lines.append(line.rstrip())
            if lines[-1]:
                report(lines[-1])
    seconds = time.monotonic() - begun
    recap = parse_recap(lines)
    if process.returncode != 0 or recap is None:
        raise PlaybookFailed(
            f"{' '.join(command)}: exit status {process.returncode} after {seconds:.0f} s\n"
            f"{last_lines(chr(10).join(lines))}"
        )
    line, changed = recap
    return PlaybookRun(playbook, line, changed, seconds)


def parse_recap(lines: Sequence[str]) -> tuple[str, int] | None:
    """Return the host's line of a play's recap and how many tasks changed something, if there is one."""
    for line in reversed(lines):
        match = _RECAP.match(line)
        if match:
            return " ".join(line.split()), int(match.group(1))
    return None


@contextlib.contextmanager
def _own_session(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a play that a Ctrl-C of the terminal does not reach, and wait for its end whatever happens.

    Half a play is harder to take back than a whole one, and a whole one takes seconds.
    """
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    limited = ["timeout", "--kill-after", str(KILL_SECONDS), str(PLAYBOOK_SECONDS), *command]
    process = subprocess.Popen(
        limited,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def _existing(*places: str) -> list[str]:
    return [place for place in places if os.path.lexists(place)]


def _own_objects() -> frozenset[tuple[str, int]]:
    pins = f"{NodePaths().pins}/"
    programs = json.loads(run(["bpftool", "--json", "--bpffs", "prog", "show"]))
    own = [program for program in programs if any(pin.startswith(pins) for pin in program.get("pinned", ()))]
    maps = {("map", number) for program in own for number in program.get("map_ids", ())}
    return frozenset(maps | {("program", program["id"]) for program in own})


def _from_root(path: Path) -> str:
    return os.path.relpath(path, ROOT)
