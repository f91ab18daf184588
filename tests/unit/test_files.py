"""Files of ours: replaced whole or not at all, and nothing else's place taken."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.errors import NotOurs
from meshaccel.system import files

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = b"old " * 20000, b"new " * 30000


def a_symlink(place: Path) -> None:
    target = place.with_name("target")
    target.write_bytes(b"theirs")
    place.symlink_to(target)


def a_dangling_symlink(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


def a_directory(place: Path) -> None:
    place.mkdir()


def a_fifo(place: Path) -> None:
    os.mkfifo(place)


in_the_way = pytest.mark.parametrize("obstacle", [a_symlink, a_dangling_symlink, a_directory, a_fifo])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "file"


# ---- what is in the way ----


@in_the_way
@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "act",
    [files.read, lambda path: files.write(path, b"ours"), files.remove],
    ids=["read", "write", "remove"],
)
def test_what_is_no_regular_file_is_refused_and_left_alone(
    place: Path, obstacle: Callable[[Path], None], act: Callable[[str], object]
) -> None:
    obstacle(place)
    before = (os.lstat(place), sorted(place.parent.iterdir()))
    with pytest.raises(NotOurs) as caught:
        act(str(place))
    assert str(place) in caught.value.wanted
    assert ("symlink" in caught.value.found) == place.is_symlink()
    assert (os.lstat(place).st_ino, sorted(place.parent.iterdir())) == (before[0].st_ino, before[1])


def test_the_target_of_a_refused_symlink_keeps_its_content(place: Path) -> None:
    a_symlink(place)
    with pytest.raises(NotOurs):
        files.write(str(place), b"ours")
    assert place.read_bytes() == b"theirs"


def test_refusing_leaks_no_descriptor(place: Path) -> None:
    place.mkdir()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208  pathlib would hold a descriptor of its own
    with pytest.raises(NotOurs):
        files.read(str(place))
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208  as above


def a_regular_file(place: Path) -> None:
    place.touch()


def a_symlink_to_a_directory(place: Path) -> None:
    target = place.with_name("target")
    target.mkdir()
    place.symlink_to(target)


@pytest.mark.parametrize("obstacle", [a_regular_file, a_symlink_to_a_directory, a_dangling_symlink])
def test_what_is_no_directory_is_refused_in_the_place_of_one(
    place: Path, obstacle: Callable[[Path], None]
) -> None:
    obstacle(place)
    with pytest.raises(NotOurs, match="a directory at"):
        files.make_directory(str(place))


@pytest.mark.parametrize("obstacle", [a_symlink_to_a_directory, a_dangling_symlink])
def test_nothing_is_written_through_a_symlinked_directory(
    place: Path, obstacle: Callable[[Path], None]
) -> None:
    obstacle(place)
    with pytest.raises(NotOurs, match="a directory at"):
        files.write(str(place / "file"), b"ours")
    assert not (place / "file").exists()


def test_an_error_of_the_system_is_not_taken_for_somebody_elses_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "denied", str(place))

    place.touch()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        files.read(str(place))


# ---- reading and removing ----


def test_no_file_reads_as_none(place: Path) -> None:
    assert files.read(str(place)) is None


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x00\xff" * 5000], ids=["empty", "text", "bytes"])
def test_what_was_written_is_read_back(place: Path, content: bytes) -> None:
    files.write(str(place), content)
    assert files.read(str(place)) == content


def test_removing_takes_the_file_and_accepts_that_there_is_none(place: Path) -> None:
    files.write(str(place), b"")
    files.remove(str(place))
    files.remove(str(place))
    assert list(place.parent.iterdir()) == []


# ---- writing ----


def test_directories_above_are_made(tmp_path: Path) -> None:
    files.write(str(tmp_path / "a" / "b" / "file"), b"ours")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"ours"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755], ids=oct)
def test_a_file_has_the_mode_that_was_asked_for_whatever_the_umask(place: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        files.write(str(place), b"", mode)
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o7777 == mode


def test_a_reader_sees_all_of_the_old_or_all_of_the_new(place: Path) -> None:
    files.write(str(place), OLD)
    seen: set[bytes] = set()
    stop = threading.Event()

    def read_again_and_again() -> None:
        while not stop.is_set():
            seen.add(files.read(str(place)) or b"nothing")

    reader = threading.Thread(target=read_again_and_again)
    reader.start()
    try:
        for _ in range(50):
            files.write(str(place), NEW)
            files.write(str(place), OLD)
    finally:
        stop.set()
        reader.join()
    assert seen <= {OLD, NEW}


def test_an_open_file_keeps_its_old_content(place: Path) -> None:
    files.write(str(place), OLD)
    with place.open("rb") as stream:
        files.write(str(place), NEW)
        assert stream.read() == OLD


@pytest.mark.parametrize("step", ["fchmod", "fsync", "rename"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    files.write(str(place), b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        files.write(str(place), b"new")
    assert {entry.name: entry.read_bytes() for entry in place.parent.iterdir()} == {"file": b"old"}


def test_the_content_is_on_disk_before_the_name_points_to_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, lambda *_, step=name: steps.append(step))
    files.write(str(place), b"")
    assert steps == ["fsync", "rename", "fsync"]


# ---- directories ----


def test_only_an_empty_directory_is_removed(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    (full / "inside").mkdir(parents=True)
    empty.mkdir()
    for path in (full, empty, tmp_path / "none"):
        files.remove_empty_directory(str(path))
    assert (full.exists(), empty.exists()) == (True, False)


def test_a_directory_that_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    files.make_directory(str(tmp_path))
    assert (tmp_path / "kept").exists()


# ---- writers that were killed ----

UNFINISHED = ".file.0123456789ab"


def test_what_a_killed_writer_left_is_removed(place: Path) -> None:
    place.with_name(UNFINISHED).write_bytes(b"half")
    files.remove_unfinished(str(place.parent))
    assert list(place.parent.iterdir()) == []


def test_nothing_else_is_taken_for_what_a_killed_writer_left(place: Path) -> None:
    names = {
        "file",
        ".file",
        ".file.0123456789a",
        ".file.0123456789abc",
        ".file.0123456789AB",
        UNFINISHED[1:],
    }
    for name in names:
        place.with_name(name).touch()
    files.remove_unfinished(str(place.parent))
    assert {path.name for path in place.parent.iterdir()} == names


def test_a_file_that_is_just_written_is_left_alone(place: Path) -> None:
    descriptor, temporary = files.open_temporary(str(place), 0o644)
    try:
        files.remove_unfinished(str(place.parent))
        assert os.path.samestat(Path(temporary).stat(), os.fstat(descriptor))
    finally:
        os.close(descriptor)
    files.remove_unfinished(str(place.parent))
    assert list(place.parent.iterdir()) == []


def test_a_file_that_is_taken_before_its_writer_locks_it_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    interferences = iter([files.remove_unfinished])

    def lock_too_late(descriptor: int, operation: int) -> None:
        with contextlib.suppress(StopIteration):
            next(interferences)(str(place.parent))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    files.write(str(place), NEW)
    assert place.read_bytes() == NEW
    assert list(place.parent.iterdir()) == [place]


def test_no_directory_has_nothing_unfinished(place: Path) -> None:
    files.remove_unfinished(str(place / "nowhere"))
