"""What a run that was killed could not take down itself.

Names of namespaces, cgroups and directories carry the process id of the run that made them, so what
belongs to a run still going is told from what was left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import installation
from tests.support.cgroups import NAME_PREFIX, cgroup2_mount, remove_cgroup
from tests.support.namespaces import NAMESPACE_DIRECTORY, remove_namespace
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable

MAKER = re.compile(rf"{NAME_PREFIX}(\d+)-")
ZOMBIE = "Z"


def remove_leftovers() -> list[Path]:
    """Remove the installation, namespaces, cgroups and directories of runs that are no more; return them."""
    # Processes go with their cgroups, so that nothing is in use any more when the rest follows.
    return [
        *_remove_abandoned(installation.CLAIMS, installation.remove, installation.SUFFIX),
        *_remove_abandoned(cgroup2_mount(), remove_cgroup),
        *_remove_abandoned(NAMESPACE_DIRECTORY, lambda path: remove_namespace(path.name)),
        *_remove_abandoned(Path(tempfile.gettempdir()), _remove_directory),
    ]


def _remove_abandoned(directory: Path, remove: Callable[[Path], None], suffix: str = "") -> list[Path]:
    abandoned = [path for path in directory.glob(f"{NAME_PREFIX}*{suffix}") if _is_abandoned(path)]
    for path in abandoned:
        remove(path)
    return abandoned


def _is_abandoned(path: Path) -> bool:
    maker = MAKER.match(path.name)
    return maker is not None and not _is_running(maker.group(1))


def _is_running(process_id: str) -> bool:
    try:
        status = Path("/proc", process_id, "stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    # The state follows the name, which stands in brackets and may hold brackets itself.
    return status.rpartition(")")[2].split()[0] != ZOMBIE


def _remove_directory(path: Path) -> None:
    if os.path.ismount(path):
        run(["umount", str(path)])
    shutil.rmtree(path)
