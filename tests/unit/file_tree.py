"""Everything below a directory, so that two moments can be compared."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file with its bytes, a symlink with its target, or a directory with neither."""

    mode: str
    content: bytes | str | None = None


def file_tree(directory: Path) -> dict[str, Entry]:
    """Return what is below a directory, by path relative to it; symlinks are not followed."""
    return {str(path.relative_to(directory)): entry(path) for path in sorted(directory.rglob("*"))}


def entry(path: Path) -> Entry:
    """Return one of them; its mode as `ls -l` writes it."""
    mode = stat.filemode(path.lstat().st_mode)
    if path.is_symlink():
        return Entry(mode, str(path.readlink()))
    return Entry(mode, path.read_bytes() if path.is_file() else None)
