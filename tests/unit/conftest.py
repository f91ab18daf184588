"""What the unit tests share: no deadline, so that a busy machine fails nothing, and a node in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from meshaccel.system.cgroups import Hierarchy
from tests.support.accelerator import node_paths

if TYPE_CHECKING:
    from pathlib import Path

    from meshaccel.paths import NodePaths

settings.register_profile("meshaccel", deadline=None, derandomize=True, database=None)
settings.load_profile("meshaccel")


@pytest.fixture
def hierarchy(tmp_path: Path) -> Hierarchy:
    """Return a cgroup hierarchy of plain directories: system.slice/web.service and pods/one."""
    mount = tmp_path / "cgroup2"
    (mount / "system.slice" / "web.service").mkdir(parents=True)
    (mount / "pods" / "one").mkdir(parents=True)
    return Hierarchy(str(mount))


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    """Return an installation below the test's own folder."""
    return node_paths(tmp_path, tmp_path / "bpffs")
