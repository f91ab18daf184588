"""Changed builds of sockops: another version to update to, or one with something broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCES = Path(__file__).resolve().parents[2] / "bpf"
BUILD_SECONDS = 120.0


def build_variant(directory: Path, replacements: Mapping[str, str], source: str = "sockops.bpf.c") -> Path:
    """Compile sockops with pieces of a source replaced, below `directory`; return the object file.

    Raises ValueError when a piece does not occur exactly once: the source has moved on.
    """
    sources = directory / "bpf"
    shutil.copytree(SOURCES, sources)
    changed = sources / source
    text = changed.read_text(encoding="utf-8")
    for old, new in replacements.items():
        if text.count(old) != 1:
            raise ValueError(f"{source} has {old!r} {text.count(old)} times, not once")
        text = text.replace(old, new)
    changed.write_text(text, encoding="utf-8")
    run(["make", "-s", "-C", str(sources), f"OUTPUT={directory}"], timeout=BUILD_SECONDS)
    return directory / "sockops.bpf.o"
