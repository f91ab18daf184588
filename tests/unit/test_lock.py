"""The node's lock: one run at a time, named to those that wait, free however its holder ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.errors import Busy, NotOurs
from meshaccel.lock import node_lock

if TYPE_CHECKING:
    from types import FrameType

    from meshaccel.paths import NodePaths

ROOT = Path(__file__).resolve().parents[2]
SHORT_SECONDS = 0.1
LONG_SECONDS = 60.0
PROCESSES = 8
ACQUISITIONS = 50

HOLD = """
import sys, time
from meshaccel.lock import node_lock
from meshaccel.paths import NodePaths

with node_lock(NodePaths(runtime=sys.argv[1]), "a run that is killed"):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = f"""
import pathlib, sys
from meshaccel.lock import node_lock
from meshaccel.paths import NodePaths

paths, counter = NodePaths(runtime=sys.argv[1]), pathlib.Path(sys.argv[2])
for _ in range({ACQUISITIONS}):
    with node_lock(paths, "count", {LONG_SECONDS}):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process of its own that runs a script of the package."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": str(ROOT / "module_utils")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def killed_holder(paths: NodePaths) -> None:
    """Have had a process take the lock and be killed while it held it."""
    with start(HOLD, paths.runtime) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(Busy, match=f"a run that is killed .process {holder.pid}."):
                acquire(paths)
        finally:
            holder.kill()


def acquire(paths: NodePaths, wait_seconds: float = SHORT_SECONDS) -> None:
    """Take the lock and let go of it."""
    with node_lock(paths, "another run", wait_seconds):
        pass


def test_a_second_run_waits_and_is_told_who_holds_the_lock(paths: NodePaths) -> None:
    with node_lock(paths, "sockops converge"):
        before = time.monotonic()
        with pytest.raises(Busy) as caught:
            acquire(paths)
        assert time.monotonic() - before >= SHORT_SECONDS
    assert paths.lock in caught.value.wanted
    assert f"sockops converge (process {os.getpid()})" in caught.value.found


def test_who_waited_in_vain_takes_nothing_from_the_holder(paths: NodePaths) -> None:
    with node_lock(paths, "sockops converge"):
        for _ in range(2):
            with pytest.raises(Busy, match="sockops converge"):
                acquire(paths)
    acquire(paths)


def test_a_second_run_gets_the_lock_when_the_first_ends_within_its_wait(paths: NodePaths) -> None:
    with ThreadPoolExecutor(1) as thread:
        with node_lock(paths, "first"):
            second = thread.submit(acquire, paths, LONG_SECONDS)
            time.sleep(SHORT_SECONDS)
            assert not second.done()
        second.result(LONG_SECONDS)


def test_the_name_of_a_former_holder_does_not_show_through(paths: NodePaths, tmp_path: Path) -> None:
    Path(paths.runtime).mkdir()
    Path(paths.lock).write_text("a much longer purpose of a run that was killed " * 4)
    with node_lock(paths, "short"):
        assert Path(paths.lock).read_text() == f"short (process {os.getpid()})"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_run_that_failed(
    paths: NodePaths, tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), node_lock(paths, "run"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_its_directory_are_left(paths: NodePaths) -> None:
    acquire(paths)
    other = Path(paths.runtime, "other")
    other.parent.mkdir()
    other.touch()
    acquire(paths)
    assert list(other.parent.iterdir()) == [other]


def test_a_run_ends_well_when_somebody_removed_its_lock_meanwhile(paths: NodePaths) -> None:
    with node_lock(paths, "run"):
        Path(paths.lock).unlink()
    acquire(paths)


def test_a_run_whose_lock_was_removed_does_not_remove_that_of_the_next(paths: NodePaths) -> None:
    with contextlib.ExitStack() as second:
        with node_lock(paths, "first"):
            Path(paths.lock).unlink()
            second.enter_context(node_lock(paths, "second", SHORT_SECONDS))
        with pytest.raises(Busy, match="second"):
            acquire(paths)


@pytest.mark.usefixtures("killed_holder")
def test_the_lock_is_free_once_its_holder_was_killed(paths: NodePaths, tmp_path: Path) -> None:
    assert Path(paths.lock).exists()
    acquire(paths)
    assert list(tmp_path.iterdir()) == []


def test_only_root_may_look_at_it(paths: NodePaths) -> None:
    with node_lock(paths, "run"):
        assert Path(paths.runtime).stat().st_mode & 0o777 == 0o700
        assert Path(paths.lock).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("target", ["missing", "target"])
def test_a_symlink_in_its_place_is_not_followed(paths: NodePaths, tmp_path: Path, target: str) -> None:
    (tmp_path / "target").write_text("theirs")
    Path(paths.runtime).mkdir()
    Path(paths.lock).symlink_to(tmp_path / target)
    with pytest.raises(NotOurs, match="wanted the lock file"):
        acquire(paths)
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "missing").exists()
    assert Path(paths.lock).is_symlink()


def test_a_symlink_in_the_place_of_its_directory_is_not_followed(paths: NodePaths, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    Path(paths.runtime).symlink_to(tmp_path / "theirs")
    with pytest.raises(NotOurs, match="found a symlink"):
        acquire(paths)
    assert list((tmp_path / "theirs").iterdir()) == []


def hand_over_before_call(paths: NodePaths, step: int) -> bool:
    """Take the lock, which its holder lets go of before one of the calls of ours; check that it is held.

    Return whether there were so many calls before the first pause.
    """
    calls = itertools.count()
    holder = contextlib.ExitStack()
    holder.enter_context(node_lock(paths, "the former run"))
    reached: list[bool] = []

    def end_the_former_run(_: FrameType | None, event: str, function: object) -> None:
        if event == "c_call" and not reached:
            this_step, pause = next(calls) == step, function is time.sleep
            if this_step or pause:
                holder.close()
                reached.append(not pause)

    sys.setprofile(end_the_former_run)
    try:
        with node_lock(paths, "this run", LONG_SECONDS):
            sys.setprofile(None)
            with pytest.raises(Busy, match="this run"):
                acquire(paths, 0)
    finally:
        sys.setprofile(None)
    return reached == [True]


def test_the_former_run_may_end_at_any_moment(paths: NodePaths, tmp_path: Path) -> None:
    steps = itertools.takewhile(lambda step: hand_over_before_call(paths, step), itertools.count())
    assert len(list(steps)) > 1
    assert list(tmp_path.iterdir()) == []


def test_processes_that_hand_the_lock_on_never_hold_it_together(paths: NodePaths, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNT, paths.runtime, str(counter)) for _ in range(PROCESSES)]
    try:
        errors = [process.communicate(timeout=LONG_SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert errors == [""] * PROCESSES
    assert int(counter.read_text()) == PROCESSES * ACQUISITIONS
    assert list(tmp_path.iterdir()) == [counter]
