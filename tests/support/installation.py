"""Whose the installation on this machine is: that of a test or of a demonstration may be removed by the next.

A run that is killed leaves its installation behind. That of an operator carries no claim and is left alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.support.cgroups import NAME_PREFIX
from tests.support.processes import run

ROOT = Path(__file__).parents[2]
CLAIMS = Path(tempfile.gettempdir())
SUFFIX = "-installation"
REMOVE = (
    str(Path(sys.executable).with_name("ansible-playbook")),
    *("-i", str(ROOT / "inventories" / "local"), str(ROOT / "playbooks" / "remove.yml")),
)


def claim() -> None:
    """Say that what this process installs from now on is not an operator's."""
    _own_claim().touch()


def release() -> None:
    """Say that it has been removed."""
    _own_claim().unlink(missing_ok=True)


def remove(abandoned: Path) -> None:
    """Take off the installation of a process that is no more, by its claim."""
    run(["env", f"ANSIBLE_CONFIG={ROOT / 'ansible.cfg'}", *REMOVE])
    abandoned.unlink()


def _own_claim() -> Path:
    return CLAIMS / f"{NAME_PREFIX}{os.getpid()}{SUFFIX}"
