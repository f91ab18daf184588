"""Temporary directories of a test, named so that what a killed run left behind is known as such."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from tests.support.cgroups import NAME_PREFIX

if TYPE_CHECKING:
    from pathlib import Path


def temporary_directory(label: str) -> tempfile.TemporaryDirectory[str]:
    """Return a directory that goes with its context; `label` says what it is for."""
    return tempfile.TemporaryDirectory(prefix=directory_prefix(label))


def kept_directory(label: str, parent: Path) -> str:
    """Make a directory that stays, below one that exists."""
    return tempfile.mkdtemp(prefix=directory_prefix(label), dir=parent)


def directory_prefix(label: str) -> str:
    """Return how the name of a directory of this process begins."""
    return f"{NAME_PREFIX}{os.getpid()}-{label}-"
