# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the project's playbooks on this machine and counts what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from meshaccel.model import Json

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGINS = Path(__file__).resolve().parent / "ansible_plugins"
TIMEOUT_SECONDS = 120
INVENTORY = {
    "all": {
        "hosts": {
            "localhost": {
                "ansible_connection": "counted",
                "ansible_python_interpreter": "/usr/bin/python3",
            }
        }
    }
}


@dataclass(frozen=True)
class PlaybookRun:
    """How a run of a playbook ended. ``tasks`` counts task banners, skipped ones too."""

    return_code: int
    output: str
    tasks: int
    module_calls: int
    bytes_exchanged: int

    @property
    def changed(self) -> int:
        """The recap's count of changed tasks."""
        return self._recap("changed")

    @property
    def failed(self) -> int:
        """The recap's count of failed tasks."""
        return self._recap("failed")

    def _recap(self, word: str) -> int:
        line = next(line for line in self.output.splitlines() if line.startswith("localhost "))
        return int(line.split(f"{word}=")[1].split()[0])

    @property
    def differences(self) -> list[str]:
        """The lines of every diff shown, in order."""
        marks = ("+", "-")
        return [line for line in self.output.splitlines() if line.startswith(marks)]


def run_playbook(name: str, *options: str, directory: Path, **variables: Json) -> PlaybookRun:
    """Runs playbooks/NAME.yml on this machine over the counted connection.

    ``directory`` takes the inventory and the ledger. Raises TimeoutExpired.
    """
    inventory, ledger = directory / "inventory.json", directory / "ledger"
    inventory.write_text(json.dumps(INVENTORY), encoding="utf-8")
    ledger.write_text("", encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS),
        "ANSIBLE_NOCOLOR": "1",
        "COUNTED_EXCHANGES": str(ledger),
    }
    finished = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory",
            str(inventory),
            str(REPOSITORY / "playbooks" / f"{name}.yml"),
            "--extra-vars",
            json.dumps(variables),
            *options,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    exchanges = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return PlaybookRun(
        return_code=finished.returncode,
        output=finished.stdout,
        tasks=sum(line.startswith("TASK [") for line in finished.stdout.splitlines()),
        module_calls=sum(exchange["module"] for exchange in exchanges),
        bytes_exchanged=sum(exchange["bytes"] for exchange in exchanges),
    )
