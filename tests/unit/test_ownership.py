"""Which names are ours in bpffs, which are refused, and what is found and removed below our directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.bpf import ownership
from meshaccel.bpf.ownership import Bpffs, Kind, near, pin_name
from meshaccel.errors import InvalidInput, NotOurs, Unsupported
from meshaccel.paths import NodePaths
from meshaccel.system import mounts

PATHS = NodePaths()
NAMES = st.text(st.characters(exclude_characters="/.\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture
def node(tmp_path: Path) -> NodePaths:
    """Return a node whose bpffs is a folder with our directory in it."""
    (tmp_path / "bpffs" / "meshaccel").mkdir(parents=True)
    return NodePaths(bpffs=str(tmp_path / "bpffs"), pins=str(tmp_path / "bpffs" / "meshaccel"))


def make(node: NodePaths, *names: str) -> None:
    """Put files in the place of pins."""
    for name in names:
        path = Path(node.pins, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# ---- names ----


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_every_path_of_plain_names_is_ours(parts: list[str]) -> None:
    name = "/".join(parts)
    assert pin_name(PATHS, name) == name
    assert pin_name(PATHS, f"{PATHS.pins}/{name}") == name


@given(st.text(alphabet="ab./\0", max_size=12))
def test_no_accepted_name_leads_out(name: str) -> None:
    with contextlib.suppress(InvalidInput):
        path = f"{PATHS.pins}/{pin_name(PATHS, name)}"
        assert os.path.normpath(path) == path
        assert path.startswith(PATHS.pins + "/")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("../count", "outside"),
        ("a/../../count", "outside"),
        ("/sys/fs/bpf/count", "outside"),
        ("/sys/fs/bpf/meshaccelerator/count", "outside"),
        ("/etc/passwd", "outside"),
        ("", "''"),
        ("a//b", "'a//b'"),
        ("a/", "'a/'"),
        (".", "'.'"),
        ("count.v2", "'count.v2'"),
        ("a\0b", r"'a\x00b'"),
        ("a" * 256, "a" * 256),
    ],
)
def test_other_names_are_refused(name: str, found: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        pin_name(PATHS, name)
    assert found in raised.value.found
    assert PATHS.pins in raised.value.wanted


def test_the_remedy_of_a_refused_name_is_a_name_that_is_accepted() -> None:
    with pytest.raises(InvalidInput, match="such as 'count_v2'"):
        pin_name(PATHS, "../count.v2")
    assert pin_name(PATHS, "count_v2")


@pytest.mark.parametrize(
    ("name", "names", "said"),
    [
        ("conections", ["connections", "ports", "events"], "connections (near) among 3"),
        ("zzz", ["b", "a"], "a, b"),
        ("zzz", [], "none at all"),
    ],
)
def test_a_failed_lookup_names_what_is_near(name: str, names: list[str], said: str) -> None:
    assert near(name, names) == said


def test_a_missing_pin_names_ours_that_is_near(node: NodePaths) -> None:
    make(node, "count_maps/connections", "count")
    error = ownership.missing_pin(node, "count_maps/conections", Kind.MAP)
    assert "count_maps/connections" in error.found


# ---- what is there ----


def test_our_pins_are_listed_by_name(node: NodePaths) -> None:
    assert ownership.names(node) == ()
    make(node, "count_maps/connections", "count")
    assert ownership.names(node) == ("count", "count_maps/connections")


def test_a_symlink_below_our_directory_is_not_followed(node: NodePaths, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs").touch()
    (tmp_path / "bpffs" / "meshaccel" / "link").symlink_to(outside)

    assert "theirs" not in "".join(ownership.names(node))
    with pytest.raises(NotOurs, match="link is a symlink"):
        ownership.open_ours(node, f"{node.pins}/link/theirs", Kind.MAP)
    with pytest.raises(NotOurs, match="link is a symlink"):
        ownership.make_directories(node, f"{node.pins}/link/new/pin")
    assert [entry.name for entry in outside.iterdir()] == ["theirs"]


def test_our_directory_itself_may_be_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "pins").symlink_to(tmp_path / "theirs")
    paths = NodePaths(bpffs=str(tmp_path), pins=str(tmp_path / "pins"))
    with pytest.raises(NotOurs, match="is a symlink to"):
        ownership.refuse_symlinks(paths, f"{paths.pins}/count")


def test_a_directory_is_no_pin(node: NodePaths) -> None:
    make(node, "count_maps/connections")
    with pytest.raises(NotOurs, match=r"wanted a program .* found a directory"):
        ownership.open_ours(node, f"{node.pins}/count_maps", Kind.PROGRAM)


def test_what_is_no_bpf_object_has_no_kind(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert ownership.kind_of(stream.fileno()) is None


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ("pos:\t0\nprog_type:\t13\nprog_tag:\t4a44043962ba732d\n", Kind.PROGRAM),
        ("pos:\t0\nmap_type:\t1\nkey_size:\t2\n", Kind.MAP),
        ("pos:\t0\nlink_type:\tcgroup\nlink_id:\t7\nprog_tag:\t4a44043962ba732d\n", Kind.LINK),
        ("pos:\t0\nflags:\t02\n", None),
    ],
)
def test_the_kind_of_a_pin_is_read_from_the_kernels_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str, kind: Kind | None
) -> None:
    (tmp_path / "5").write_text(fields)
    monkeypatch.setattr(ownership, "DESCRIPTOR_INFORMATION", str(tmp_path))
    assert ownership.kind_of(5) is kind


# ---- directories ----


def test_directories_are_made_and_only_empty_ones_removed(node: NodePaths, tmp_path: Path) -> None:
    pin = f"{node.pins}/a/b/count"
    ownership.make_directories(node, pin)
    ownership.make_directories(node, pin)
    make(node, "a/other")

    ownership.remove_empty_directories(node, pin)

    below = tmp_path / "bpffs" / "meshaccel"
    assert not (below / "a" / "b").exists()
    (below / "a" / "other").unlink()
    ownership.remove_empty_directories(node, pin)
    assert not below.exists()
    assert (tmp_path / "bpffs").is_dir()


# ---- the file system ----


def mounted(
    node: NodePaths, monkeypatch: pytest.MonkeyPatch, source: str = "bpf", options: str = "rw"
) -> None:
    """Have the kernel say that our bpffs is mounted."""
    line = f"30 1 0:26 / {node.bpffs} {options} - bpf {source} rw\n"
    monkeypatch.setattr(mounts, "current", lambda: mounts.parse(line))


def test_a_bpffs_that_is_not_mounted_is_mounted_and_that_undone(node: NodePaths) -> None:
    found = ownership.observe_bpffs(node)
    assert found == Bpffs(mounted=False)
    (action,) = ownership.mounting(found, node)
    assert (action.kind, action.undo[0].kind) == ("bpffs.mount", "bpffs.unmount")
    assert ownership.unmounting(found, node) == ()


def test_a_mounted_bpffs_is_left_as_it_is(node: NodePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(node, monkeypatch)
    found = ownership.observe_bpffs(node)
    assert found == Bpffs(mounted=True)
    assert ownership.mounting(found, node) == ()
    assert ownership.unmounting(found, node) == ()


def test_a_read_only_bpffs_is_refused(node: NodePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(node, monkeypatch, options="ro")
    with pytest.raises(Unsupported, match="mounted read-only; mount -o remount,rw"):
        ownership.mounting(ownership.observe_bpffs(node), node)


@pytest.mark.parametrize(
    ("others", "unmounted"),
    [([], True), (["maps.debug", "progs.debug"], True), (["cilium"], False)],
    ids=["empty", "the kernel's own", "somebody else's"],
)
def test_our_mount_goes_when_nobody_else_uses_it(
    node: NodePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str], *, unmounted: bool
) -> None:
    mounted(node, monkeypatch, source=mounts.MARK)
    for name in others:
        (tmp_path / "bpffs" / name).touch()
    found = ownership.observe_bpffs(node)
    assert found.ours
    plan = ownership.unmounting(found, node)
    assert [(action.kind, action.undo[0].kind) for action in plan] == [
        ("bpffs.unmount", "bpffs.mount")
    ] * unmounted


def test_a_pin_in_the_place_of_our_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meshaccel").touch()
    paths = NodePaths(bpffs=str(tmp_path), pins=str(tmp_path / "meshaccel"))
    mounted(paths, monkeypatch)
    with pytest.raises(NotOurs, match="a pin there"):
        ownership.observe_bpffs(paths)


@pytest.mark.parametrize(
    ("line", "mounts_made", "unmounts_made"),
    [
        ("", 1, 0),
        ("30 1 0:26 / {} rw - bpf meshaccel rw\n", 0, 1),
        ("30 1 0:26 / {} rw - bpf bpf rw\n", 0, 0),
    ],
    ids=["none", "ours", "somebody else's"],
)
def test_bpffs_is_mounted_once_and_unmounted_only_with_our_mark(
    node: NodePaths, monkeypatch: pytest.MonkeyPatch, line: str, mounts_made: int, unmounts_made: int
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(mounts, "current", lambda: mounts.parse(line.format(node.bpffs)))
    monkeypatch.setattr(mounts, "mount_bpffs", lambda _: calls.append("mount"))
    monkeypatch.setattr(mounts, "unmount", lambda _: calls.append("unmount"))
    handlers = ownership.mount_handlers(node)
    handlers["bpffs.mount"]({})
    handlers["bpffs.unmount"]({})
    assert calls == ["mount"] * mounts_made + ["unmount"] * unmounts_made
