"""A bpffs of a test's own, so that its pins are nobody else's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.directories import temporary_directory
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def own_bpffs() -> Iterator[Path]:
    """Mount a new bpffs on a temporary directory meanwhile; its pins go with it."""
    with temporary_directory("bpffs") as name:
        run(["mount", "-t", "bpf", "none", name])
        try:
            yield Path(name)
        finally:
            run(["umount", name])
