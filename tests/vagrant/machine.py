"""Machines of the project's Vagrantfile, each with a state of its own, for the scenarios of Molecule."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
BOX_VARIABLE = "MESHACCEL_VAGRANT_BOX"
DRIVER_VARIABLE = "MESHACCEL_VAGRANT_DRIVER"
NODES_VARIABLE = "MESHACCEL_VAGRANT_NODES"
SUPERUSER = "root"
#: Scenarios log in as root, as to the guests of tests/vm. In public boxes another user may become root.
ADMIT_SUPERUSER = "sudo install -D -m 600 -o root -g root ~/.ssh/authorized_keys ~root/.ssh/authorized_keys"
LOG_TAIL_LINES = 15
TRACE = "\tfrom "


class VagrantError(RuntimeError):
    """A command of Vagrant failed; has its last lines."""


@dataclass(frozen=True)
class Machine:
    """One machine; the folder has what Vagrant remembers of it."""

    name: str
    directory: Path

    def start(self, environment: Mapping[str, str]) -> dict[str, object]:
        """Start it, and return how to log in, as `python -m tests.vm start` prints it.

        The environment is the Vagrantfile's. One that was left is ended first. Raises VagrantError, and then
        it does not run any more.
        """
        self.stop()
        self.directory.mkdir(parents=True)
        self._environment.write_text(json.dumps(dict(environment)), encoding="utf-8")
        try:
            self.call(["up", "--provision-with", "packages"])
            login = parse_login(self.call(["ssh-config", self.name]))
            if login["User"] != SUPERUSER:
                self.call(["ssh", self.name, "--command", ADMIT_SUPERUSER])
        except BaseException:
            self.stop()
            raise
        return {
            "address": login["HostName"],
            "port": int(login["Port"]),
            "user": SUPERUSER,
            "options": {"IdentityFile": login["IdentityFile"]},
        }

    def stop(self) -> None:
        """End it and remove its disk; fine when there is none. Raises VagrantError."""
        if self.directory.exists():
            self.call(["destroy", "--force"])
            shutil.rmtree(self.directory)

    def call(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """Run a command of Vagrant for it alone and return what it prints. Raises VagrantError.

        By default with the Vagrantfile's variables that it was started with, since any command may change
        what they are about.
        """
        own = {
            "VAGRANT_CWD": str(ROOT),
            "VAGRANT_DOTFILE_PATH": str(self.directory.absolute()),
            # It would ask its makers for news.
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            NODES_VARIABLE: self.name,
        }
        return vagrant(words, {**own, **(self._started_with() if environment is None else environment)})

    def _started_with(self) -> dict[str, str]:
        if not self._environment.exists():
            return {}
        kept: dict[str, str] = json.loads(self._environment.read_text(encoding="utf-8"))
        return kept

    @property
    def _environment(self) -> Path:
        return self.directory / "environment.json"


def provide_box(name: str, path: Path) -> None:
    """Make a box known to Vagrant under a name, unless it is. Raises VagrantError."""
    if name not in names_of_boxes(vagrant(["box", "list", "--machine-readable"])):
        vagrant(["box", "add", "--name", name, str(path)])


def names_of_boxes(listed: str) -> list[str]:
    """Return the boxes in what Vagrant lists for programs: time, target, kind and data, with commas."""
    rows = (line.split(",", 3) for line in listed.splitlines())
    return [row[3] for row in rows if row[2:3] == ["box-name"]]


def parse_login(described: str) -> dict[str, str]:
    """Return the options in what Vagrant says for ssh's configuration file."""
    pairs = (line.split(maxsplit=1) for line in described.splitlines())
    return {pair[0]: pair[1].strip('"') for pair in pairs if len(pair) == 2}


def vagrant(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command of Vagrant and return what it prints. Raises VagrantError."""
    try:
        done = subprocess.run(
            ["vagrant", *words],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise VagrantError("vagrant is not installed") from error
    if done.returncode:
        raise VagrantError(
            f"vagrant {words[0]} ended with {done.returncode}:\n{last_words(done.stdout + done.stderr)}"
        )
    return done.stdout


def last_words(printed: str) -> str:
    """Return the end of what a command printed, without the trace through Ruby's programs."""
    lines = [line for line in printed.splitlines() if not line.startswith(TRACE)]
    return "\n".join(lines[-LOG_TAIL_LINES:])
