"""The record of the last run: a phase at each moment of it, and nothing of what is not there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine, record
from meshaccel.errors import ApplyFailed, Busy, MeshaccelError
from meshaccel.lock import node_lock
from meshaccel.model import Action
from meshaccel.runtime import Desired as RuntimeWish
from tests.unit.file_tree import file_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.engine import BeforeAction
    from meshaccel.model import Json, Plan
    from meshaccel.paths import NodePaths

PLAN: Plan = (Action("do", "load sockops"), Action("do", "switch sockops on"))
NAME = "sockops"


class Run:
    """A converge over a plan; writes down what the record said while it ran."""

    def __init__(self, paths: NodePaths, plan: Plan = PLAN, error: BaseException | None = None) -> None:
        self.paths = paths
        self.plan = plan
        self.error = error
        self.phases: list[str | None] = []

    def __call__(self, before_action: BeforeAction) -> str:
        engine.apply(self.plan, {"do": self.do}, before_action)
        return "outcome"

    def do(self, _: Mapping[str, Json]) -> None:
        self.phases.append(record.read(self.paths).get(NAME, {}).get("phase"))
        if self.error is not None:
            raise self.error

    def recorded(self, *, keeps: bool = True, check_mode: bool = False) -> str:
        return record.recorded(self.paths, NAME, self, keeps=keeps, check_mode=check_mode)


def age_seconds(entry: Mapping[str, str]) -> float:
    """Return how long ago an entry was written."""
    return (datetime.now(UTC) - datetime.fromisoformat(entry["time"])).total_seconds()


def test_a_run_is_applying_and_then_done_with_what_it_did(paths: NodePaths) -> None:
    run = Run(paths)
    assert run.recorded() == "outcome"
    assert run.phases == [record.APPLYING, record.APPLYING]
    entry = record.read(paths)[NAME]
    assert 0 <= age_seconds(entry) < 3600
    del entry["time"]
    assert entry == {"phase": "done", "actions": ["load sockops", "switch sockops on"]}


def test_a_run_that_failed_leaves_its_error(paths: NodePaths) -> None:
    with pytest.raises(ApplyFailed) as caught:
        Run(paths, error=OSError(28, "no space")).recorded()
    entry = record.read(paths)[NAME]
    assert (entry["phase"], entry["error"]) == ("failed", str(caught.value))
    assert "no space" in entry["error"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("a defect")], ids=repr)
def test_a_run_that_was_interrupted_stays_applying(paths: NodePaths, error: BaseException) -> None:
    with pytest.raises(type(error)):
        Run(paths, error=error).recorded()
    assert record.read(paths)[NAME]["phase"] == record.APPLYING


def test_a_run_that_fails_by_the_system_after_its_actions_has_failed(paths: NodePaths) -> None:
    def run(before_action: BeforeAction) -> None:
        Run(paths)(before_action)
        raise PermissionError(13, "cannot clean up")

    with pytest.raises(PermissionError):
        record.recorded(paths, NAME, run, keeps=True)
    assert record.read(paths)[NAME]["phase"] == "failed"


def test_a_run_without_an_action_writes_nothing(paths: NodePaths, tmp_path: Path) -> None:
    assert Run(paths, plan=()).recorded() == "outcome"
    assert file_tree(tmp_path) == {}


@pytest.mark.parametrize("phase", [record.APPLYING, record.FAILED])
def test_a_run_that_finds_nothing_left_to_do_ends_the_one_that_did_not_end_well(
    paths: NodePaths, phase: str
) -> None:
    """What was interrupted after its last action is as wished: nothing would ever call it done."""
    record.write(paths, NAME, {"phase": phase, "time": record.now()})
    Run(paths, plan=()).recorded()
    entry = record.read(paths)[NAME]
    assert (entry["phase"], entry["actions"]) == (record.DONE, [])


@pytest.mark.parametrize("phase", [record.APPLYING, record.FAILED, record.DONE])
def test_a_removal_that_finds_nothing_left_to_do_leaves_no_entry(paths: NodePaths, phase: str) -> None:
    record.write(paths, NAME, {"phase": phase, "time": record.now()})
    Run(paths, plan=()).recorded(keeps=False)
    assert not Path(paths.record).exists()


def test_what_a_killed_run_was_just_writing_is_removed_by_the_next(paths: NodePaths) -> None:
    directory = Path(paths.configuration)
    directory.mkdir()
    unfinished = directory / ".sockops.json.0123456789ab"
    unfinished.write_bytes(b"{")
    Run(paths, plan=()).recorded()
    assert list(directory.iterdir()) == []


def test_a_run_that_is_refused_before_its_first_action_keeps_the_record_of_the_last(paths: NodePaths) -> None:
    def refuse(_: BeforeAction) -> None:
        raise MeshaccelError(wanted="a cgroup", found="none", remedy="make it")

    Run(paths).recorded()
    before = record.read(paths)
    with pytest.raises(MeshaccelError, match="a cgroup"):
        record.recorded(paths, NAME, refuse, keeps=True)
    assert record.read(paths) == before


def test_a_run_that_nobody_attends_leaves_its_error_even_if_it_did_nothing(paths: NodePaths) -> None:
    def refuse(_: BeforeAction) -> None:
        raise MeshaccelError(wanted="a cgroup", found="none", remedy="make it")

    with pytest.raises(MeshaccelError) as caught:
        record.recorded(paths, NAME, refuse, keeps=True, unattended=True)
    entry = record.read(paths)[NAME]
    assert (entry["phase"], entry["error"]) == ("failed", str(caught.value))


def test_check_mode_writes_nothing_and_waits_for_no_lock(paths: NodePaths, tmp_path: Path) -> None:
    with node_lock(paths, "another run"):
        before = file_tree(tmp_path)
        run = Run(paths, plan=())
        assert run.recorded(check_mode=True) == "outcome"
        assert file_tree(tmp_path) == before


def test_check_mode_keeps_the_record_even_of_actions_that_are_noted(paths: NodePaths) -> None:
    Run(paths).recorded()
    before = record.read(paths)
    record.recorded(paths, NAME, lambda note: note(PLAN[0]), keeps=True, check_mode=True)
    assert record.read(paths) == before


def test_the_lock_is_held_for_the_whole_run_and_not_longer(paths: NodePaths) -> None:
    def attempt(_: BeforeAction) -> None:
        with pytest.raises(Busy, match="sockops converge"), node_lock(paths, "another run", 0):
            pass

    record.recorded(paths, NAME, attempt, keeps=True)
    with node_lock(paths, "another run", 0):
        pass


def test_what_was_removed_leaves_no_entry_and_the_last_one_no_file(paths: NodePaths) -> None:
    record.write(paths, "node_runtime", {"phase": "done"})
    Run(paths).recorded()
    assert sorted(record.read(paths)) == ["node_runtime", NAME]
    removal = Run(paths)
    removal.recorded(keeps=False)
    assert removal.phases == [record.DONE, record.DONE]
    assert sorted(record.read(paths)) == ["node_runtime"]
    record.write(paths, "node_runtime", None)
    assert not Path(paths.record).exists()


def test_a_removal_that_failed_leaves_its_error(paths: NodePaths) -> None:
    with pytest.raises(ApplyFailed):
        Run(paths, error=OSError(16, "busy")).recorded(keeps=False)
    assert record.read(paths)[NAME]["phase"] == record.FAILED


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'"text"', b"null"])
def test_a_damaged_record_reads_as_none_and_is_written_anew(paths: NodePaths, content: bytes) -> None:
    Path(paths.configuration).mkdir()
    Path(paths.record).write_bytes(content)
    assert record.read(paths) == {}
    Run(paths).recorded()
    assert json.loads(Path(paths.record).read_text())[NAME]["phase"] == record.DONE


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("check_mode", [True, False])
def test_a_wish_is_recorded_while_it_is_on_the_node(
    paths: NodePaths, *, present: bool, check_mode: bool
) -> None:
    asked: list[tuple[RuntimeWish, bool]] = []

    def run(desired: RuntimeWish, *, check_mode: bool, before_action: BeforeAction) -> str:
        asked.append((desired, check_mode))
        return Run(paths)(before_action)

    desired = RuntimeWish(present=present)
    assert record.converge(paths, NAME, desired, run, check_mode=check_mode) == "outcome"
    assert asked == [(desired, check_mode)]
    assert (NAME in record.read(paths)) is (present and not check_mode)
