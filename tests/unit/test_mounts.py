"""mountinfo as kernels write it, and the bpffs that carries our mark."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.handlers import Handlers
from meshaccel.system import mounts
from meshaccel.system.cgroups import Hierarchy
from meshaccel.system.mounts import Mount, at, find, parse

if TYPE_CHECKING:
    from pathlib import Path

    from meshaccel.paths import NodePaths

#: A Debian node with version 1 controllers and cgroup2 beside them.
HYBRID = """\
23 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard,errors=remount-ro
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid,relatime shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate
"""
#: A systemd node: cgroup2 alone, bpffs mounted by systemd.
UNIFIED = """\
22 28 0:20 / /sys rw,relatime shared:6 - sysfs sysfs rw
26 22 0:23 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
29 22 0:25 / /sys/fs/bpf rw,nosuid,nodev,noexec,relatime shared:8 - bpf bpf rw,mode=700
"""


@pytest.mark.parametrize(
    ("text", "point"), [(HYBRID, "/sys/fs/cgroup/unified"), (UNIFIED, "/sys/fs/cgroup")], ids=["hybrid", "v2"]
)
def test_the_cgroup2_mount_is_found_by_its_type(text: str, point: str) -> None:
    found = find("cgroup2", parse(text))
    assert found == Mount(point, "cgroup2", "cgroup2", read_only=False)


def test_a_type_that_is_not_mounted_is_not_found() -> None:
    assert find("bpf", parse(HYBRID)) is None


def test_every_line_is_a_mount_and_nothing_is_none() -> None:
    assert [mount.point for mount in parse(HYBRID)] == [line.split()[4] for line in HYBRID.splitlines()]
    assert parse("") == ()


def test_a_mount_is_found_at_exactly_its_path() -> None:
    assert at("/sys/fs/bpf", parse(UNIFIED)) == Mount("/sys/fs/bpf", "bpf", "bpf", read_only=False)
    assert at("/sys/fs", parse(UNIFIED)) is None


@pytest.mark.parametrize(
    ("written", "point"),
    [
        (r"/mnt/a\040b", "/mnt/a b"),
        (r"/mnt/a\011b", "/mnt/a\tb"),
        (r"/mnt/a\012b", "/mnt/a\nb"),
        (r"/mnt/a\134b", r"/mnt/a\b"),
        (r"/mnt/a\134040b", r"/mnt/a\040b"),
        ("/mnt/é", "/mnt/é"),
        (r"/mnt/n\134x", r"/mnt/n\x"),
    ],
    ids=["space", "tab", "newline", "backslash", "escaped-backslash", "utf-8", "no-python-escape"],
)
def test_a_mount_point_is_unescaped(written: str, point: str) -> None:
    assert parse(f"30 1 0:26 / {written} rw - bpf meshaccel rw\n")[0].point == point


@pytest.mark.parametrize(
    ("of_the_mount", "of_the_file_system", "read_only"),
    [
        ("rw", "rw", False),
        ("ro,relatime", "rw", True),
        ("rw,nosuid", "ro,mode=700", True),
        ("rw,rox", "rw", False),
    ],
    ids=["writable", "mount", "file-system", "look-alike"],
)
def test_read_only_is_the_mount_or_its_file_system(
    of_the_mount: str, of_the_file_system: str, *, read_only: bool
) -> None:
    text = f"30 1 0:26 / /sys/fs/bpf {of_the_mount} shared:8 - bpf bpf {of_the_file_system}\n"
    assert parse(text)[0].read_only is read_only


def test_a_later_mount_hides_an_earlier_one_at_its_place() -> None:
    above = "50 22 0:40 / /sys/fs/bpf ro - tmpfs tmpfs rw\n"
    assert at("/sys/fs/bpf", parse(UNIFIED + above)) == Mount("/sys/fs/bpf", "tmpfs", "tmpfs", read_only=True)


@pytest.mark.parametrize("optional", ["", "shared:1 ", "shared:1 master:2 propagate_from:3 "])
def test_optional_fields_do_not_shift_the_others(optional: str) -> None:
    mount = parse(f"30 1 0:26 /root /mnt rw {optional}- ext4 /dev/sda1 rw\n")[0]
    assert (mount.kind, mount.source) == ("ext4", "/dev/sda1")


def test_a_name_in_another_encoding_somewhere_on_the_node_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = tmp_path / "mountinfo"
    recorded.write_bytes(b"30 1 0:26 / /mnt/\xe9 rw - ext4 /dev/sda1 rw\n" + UNIFIED.encode())
    monkeypatch.setattr(mounts, "MOUNT_INFORMATION", str(recorded))
    assert at("/sys/fs/bpf", mounts.current()) is not None


def test_this_process_has_a_root_and_a_proc() -> None:
    points = {mount.point: mount.kind for mount in mounts.current()}
    assert "/" in points
    assert points["/proc"] == "proc"


# ---- what the handlers of sockops make of it ----


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(mounts, "mount_bpffs", lambda point: made.append(f"mount {point}"))
    monkeypatch.setattr(mounts, "unmount", lambda point: made.append(f"unmount {point}"))
    return made


@pytest.mark.parametrize(
    ("line", "mounted", "unmounted"),
    [
        ("", ["mount /b"], []),
        ("30 1 0:26 / /b rw - bpf meshaccel rw\n", [], ["unmount /b"]),
        ("30 1 0:26 / /b rw - bpf bpf rw\n", [], []),
    ],
    ids=["none", "ours", "somebody-elses"],
)
def test_bpffs_is_mounted_once_and_unmounted_only_with_our_mark(
    line: str,
    mounted: list[str],
    unmounted: list[str],
    calls: list[str],
    paths: NodePaths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mounts, "current", lambda: parse(line))
    handlers = Handlers(replace(paths, bpffs="/b"), Hierarchy("/cgroup2")).table()
    handlers["bpffs.mount"]({})
    assert calls == mounted
    calls.clear()
    handlers["bpffs.unmount"]({})
    assert calls == unmounted
