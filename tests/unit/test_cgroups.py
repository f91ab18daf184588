"""The cgroup2 hierarchy on a tree of plain directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.errors import InvalidInput, Unsupported
from meshaccel.system import cgroups, mounts
from meshaccel.system.cgroups import Hierarchy

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("path", ["pods/one", "/MOUNT/pods/one", "pods/./one/", "pods/two/../one"])
def test_a_path_is_meant_below_the_mount(hierarchy: Hierarchy, path: str) -> None:
    written = path.replace("/MOUNT", hierarchy.mount)
    assert hierarchy.absolute(written) == hierarchy.mount + "/pods/one"
    assert hierarchy.relative(written) == "pods/one"


@pytest.mark.parametrize("path", [".", "", "/MOUNT", "pods/.."])
def test_the_root_cgroup_is_a_dot(hierarchy: Hierarchy, path: str) -> None:
    assert hierarchy.relative(path.replace("/MOUNT", hierarchy.mount)) == "."


@pytest.mark.parametrize("path", ["..", "/", "/etc", "pods/../../x", "/MOUNT/..", "/MOUNTx", "../cgroup2x"])
def test_a_path_that_leads_out_of_the_mount_is_refused(hierarchy: Hierarchy, path: str) -> None:
    written = path.replace("/MOUNT", hierarchy.mount)
    for act in (hierarchy.absolute, hierarchy.relative, hierarchy.identify):
        with pytest.raises(InvalidInput) as caught:
            act(written)
        assert hierarchy.mount in caught.value.wanted
        assert written in caught.value.found


def test_a_cgroup_is_identified_by_its_inode(hierarchy: Hierarchy) -> None:
    for path in ("pods", "pods/one", "."):
        assert hierarchy.identify(path) == Path(hierarchy.mount, path).stat().st_ino


@pytest.mark.parametrize("path", ["none", "pods/none", "none/none"])
def test_a_cgroup_that_is_not_there_has_no_id(hierarchy: Hierarchy, path: str) -> None:
    assert hierarchy.identify(path) is None


def a_symlink(mount: Path) -> str:
    (mount / "link").symlink_to(mount / "pods")
    return "link"


def a_path_through_a_symlink(mount: Path) -> str:
    return a_symlink(mount) + "/one"


def a_symlink_out_of_the_mount(mount: Path) -> str:
    (mount / "out").symlink_to("/")
    return "out"


def a_dangling_symlink(mount: Path) -> str:
    (mount / "dangling").symlink_to("nowhere")
    return "dangling"


def a_file(mount: Path) -> str:
    (mount / "cgroup.procs").touch()
    return "cgroup.procs"


@pytest.mark.parametrize(
    "make", [a_symlink, a_path_through_a_symlink, a_symlink_out_of_the_mount, a_dangling_symlink, a_file]
)
def test_what_is_no_directory_of_the_hierarchy_is_refused(
    hierarchy: Hierarchy, make: Callable[[Path], str]
) -> None:
    path = make(Path(hierarchy.mount))
    with pytest.raises(InvalidInput) as caught:
        hierarchy.identify(path)
    assert caught.value.wanted.endswith("/" + path)
    assert "symlink" in caught.value.found


def test_another_file_system_mounted_below_is_refused() -> None:
    points = [Path(mount.point) for mount in mounts.current()]
    point = next(point for point in points if point.parent != Path("/") and point.is_mount())
    with pytest.raises(InvalidInput, match="another file system"):
        Hierarchy(str(point.parent)).identify(point.name)


# ---- from ids back to paths ----


def test_paths_are_found_by_id_wherever_they_lie(hierarchy: Hierarchy) -> None:
    places = (".", "pods", "pods/one", "system.slice/web.service")
    wanted = {Path(hierarchy.mount, path).stat().st_ino: path for path in places}
    assert hierarchy.paths_of(wanted) == wanted


def test_a_cgroup_that_is_gone_is_not_found(hierarchy: Hierarchy) -> None:
    identifier = hierarchy.identify("pods/one")
    assert identifier is not None
    Path(hierarchy.absolute("pods/one")).rmdir()
    assert hierarchy.paths_of([identifier]) == {}


def test_a_symlink_is_not_followed_on_the_way(hierarchy: Hierarchy) -> None:
    a_symlink(Path(hierarchy.mount))
    identifier = hierarchy.identify("pods/one")
    assert identifier is not None
    assert hierarchy.paths_of([identifier]) == {identifier: "pods/one"}


def test_a_cgroup_that_goes_away_meanwhile_is_passed_over(
    hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = hierarchy.identify("system.slice/web.service")
    assert wanted is not None
    real = os.scandir

    def scan_as_pods_goes_away(path: str) -> object:
        entries = real(path)
        if path == hierarchy.mount:
            Path(path, "pods", "one").rmdir()
            Path(path, "pods").rmdir()
        return entries

    monkeypatch.setattr(os, "scandir", scan_as_pods_goes_away)
    assert hierarchy.paths_of([wanted, 0]) == {wanted: "system.slice/web.service"}


# ---- where the hierarchy is ----

HYBRID = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
WITHOUT = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def test_the_hierarchy_is_where_cgroup2_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "current", lambda: mounts.parse(HYBRID))
    assert cgroups.hierarchy() == Hierarchy("/sys/fs/cgroup/unified")


def test_a_node_without_cgroup2_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "current", lambda: mounts.parse(WITHOUT))
    with pytest.raises(Unsupported) as caught:
        cgroups.hierarchy()
    assert "cgroup2" in caught.value.wanted
    assert "/proc/self/mountinfo" in caught.value.found
    assert "mount -t cgroup2" in caught.value.remedy


@pytest.mark.parametrize(
    ("path", "lasting"),
    [
        ("mesh.slice", True),
        ("kubepods.slice/kubepods-burstable.slice", True),
        ("kubepods", True),
        ("kubepods/besteffort", True),
        ("kubepods/pod1", False),
        ("system.slice/envoy.service", False),
        ("user.slice/user-0.slice/session-1.scope", False),
        (".", False),
        ("mesh.slice/app", False),
    ],
)
def test_slices_outlast_what_runs_in_them(path: str, *, lasting: bool) -> None:
    assert cgroups.is_lasting(path) is lasting


def test_a_cgroup_is_made_with_those_above_it(tmp_path: Path) -> None:
    hierarchy = cgroups.Hierarchy(str(tmp_path))
    for _ in range(2):
        hierarchy.make("a.slice/b.slice")
    assert (tmp_path / "a.slice" / "b.slice").is_dir()
    with pytest.raises(InvalidInput):
        hierarchy.make("../outside.slice")
