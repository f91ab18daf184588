# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The playbooks on this machine: check mode, converge, drift, bad input, removal.

These tests use the machine-wide installation, since that is what they test.
They refuse to run where meshaccel is installed already.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.paths import NodePaths
from meshaccel.system import mounts
from tests.support import bpftool, installation
from tests.support.cgroups import TestCgroup
from tests.support.playbooks import run_playbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.playbooks import PlaybookRun

    Run = Callable[..., PlaybookRun]

pytestmark = pytest.mark.machine
PATHS = NodePaths()
OURS = (PATHS.configuration, PATHS.library, PATHS.pins, PATHS.runtime, PATHS.command)
PROGRAMS = 5
FREE_SECONDS = 5.0
BUDGET_NO_OP_TASKS = 2
BUDGET_NO_OP_BYTES = 250_000
BUDGET_FIRST_CONVERGE_MODULE_CALLS = 12
#: The comparison by the installed code, preflight, and the one role that has work.
DRIFT_MODULE_CALLS = 3


def nothing_of_ours() -> bool:
    """True when no file of an installation is there."""
    return not any(os.path.lexists(path) for path in OURS)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a playbook; at the end everything is removed."""
    assert nothing_of_ours(), "meshaccel is installed on this machine: remove it before testing"

    call = partial(run_playbook, directory=tmp_path)
    installation.claim()
    yield call
    call("remove")
    installation.release()


@pytest.fixture
def cgroup() -> Iterator[str]:
    """A cgroup to accelerate, relative to the mount."""
    with TestCgroup("playbooks") as made:
        yield made.relative_path


def our_programs() -> set[int]:
    """The ids of the programs that run for this installation: those it has attached or pinned."""
    found: set[int] = set()
    for directory, _, names in os.walk(PATHS.pins):
        pins = [Path(directory, name) for name in names]
        found |= {bpftool.program_id(pin) for pin in pins if pin.parent.parent.name == "programs"}
    return found


def release_files() -> dict[Path, int]:
    """Every path of the installed releases, bytecode too, and when it was last changed."""
    return {path: path.lstat().st_mtime_ns for path in Path(PATHS.library).rglob("*")}


def wait_until_gone(programs: set[int]) -> None:
    """Waits until the kernel has freed programs, which it does a moment after the last use."""
    deadline = time.monotonic() + FREE_SECONDS
    while programs & bpftool.snapshot().programs.keys():
        assert time.monotonic() < deadline, "programs of ours are still loaded"
        time.sleep(0.05)


def test_check_mode_on_an_untouched_node_changes_nothing_and_tells_the_run_s_diff(
    run: Run, cgroup: str
) -> None:
    checked = run("site", "--check", "--diff", sockops_cgroups=[cgroup])
    assert checked.return_code == 0, checked.output
    assert checked.changed == 2, checked.output
    assert nothing_of_ours()
    assert not our_programs()
    converged = run("site", "--diff", sockops_cgroups=[cgroup], sockops_verify=False)
    assert converged.return_code == 0, converged.output
    assert converged.differences == checked.differences
    assert converged.differences


def test_first_converge_stays_within_its_budget_of_module_calls(run: Run, cgroup: str) -> None:
    converged = run("site", sockops_cgroups=[cgroup])
    assert converged.return_code == 0, converged.output
    assert converged.module_calls <= BUDGET_FIRST_CONVERGE_MODULE_CALLS
    assert len(our_programs()) == PROGRAMS


def test_second_converge_changes_nothing_within_its_budget(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    before, release = our_programs(), release_files()
    again = run("site", sockops_cgroups=[cgroup])
    assert again.return_code == 0, again.output
    assert again.changed == 0
    assert again.tasks <= BUDGET_NO_OP_TASKS
    assert again.module_calls == 1
    assert again.bytes_exchanged <= BUDGET_NO_OP_BYTES
    assert our_programs() == before
    assert release_files() == release


def test_drift_is_found_by_the_installed_code_and_check_mode_tells_the_run_s_diff(
    run: Run, cgroup: str
) -> None:
    run("site", sockops_cgroups=[cgroup])
    wishes = {"sockops_cgroups": [cgroup], "sockops_mode": "drain", "sockops_ports": [8080]}
    release = release_files()
    checked = run("site", "--check", "--diff", **wishes)
    assert checked.changed == 1, checked.output
    assert release_files() == release
    converged = run("site", "--diff", **wishes)
    assert converged.changed == 1, converged.output
    assert converged.module_calls == checked.module_calls == DRIFT_MODULE_CALLS
    assert converged.differences == checked.differences
    assert converged.differences
    assert run("site", **wishes).changed == 0


def test_bad_input_is_refused_by_the_installed_code_in_the_same_words(run: Run, cgroup: str) -> None:
    wishes = {"sockops_cgroups": [cgroup], "sockops_ports": [65536]}
    untouched = run("site", **wishes)
    run("site", sockops_cgroups=[cgroup])
    before = our_programs()
    refused = run("site", **wishes)
    assert (refused.failed, refused.module_calls) == (1, 1)
    assert our_programs() == before
    told = "wanted ports from 1 to 65535"
    assert [told in " ".join(each.output.split()) for each in (untouched, refused)] == [True, True]


def test_a_node_without_sockops_variables_gets_the_runtime_alone(run: Run) -> None:
    assert run("site").return_code == 0
    assert Path(PATHS.command).exists()
    assert not our_programs()


def test_remove_leaves_nothing(run: Run, cgroup: str) -> None:
    mount_before = mounts.at(PATHS.bpffs, mounts.current())
    run("site", sockops_cgroups=[cgroup])
    programs = our_programs()
    removed = run("remove")
    assert removed.return_code == 0, removed.output
    assert nothing_of_ours()
    wait_until_gone(programs)
    assert mounts.at(PATHS.bpffs, mounts.current()) == mount_before
    again = run("remove")
    assert again.changed == 0


def test_absent_in_the_inventory_removes_sockops_and_keeps_the_runtime(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    programs = our_programs()
    absent = run("site", sockops_state="absent")
    assert absent.changed == 1, absent.output
    wait_until_gone(programs)
    assert Path(PATHS.command).exists()


def test_a_node_file_edited_by_hand_is_drift_and_is_written_anew(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    kept = Path(PATHS.desired("sockops"))
    before = kept.read_bytes()
    kept.write_text("edited by hand\n", encoding="utf-8")
    code = Path(PATHS.release, "meshaccel", "engine.py")
    code.write_text(code.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    repaired = run("site", sockops_cgroups=[cgroup])
    assert repaired.changed == 2, repaired.output
    assert kept.read_bytes() == before
    assert run("site", sockops_cgroups=[cgroup]).changed == 0


def test_a_release_edited_by_hand_is_replaced_and_not_run(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    code = Path(PATHS.release, "meshaccel", "node.py")
    before = code.read_bytes()
    code.write_text("raise SystemExit('edited code ran')\n", encoding="utf-8")
    repaired = run("site", sockops_cgroups=[cgroup])
    assert repaired.return_code == 0, repaired.output
    assert repaired.changed == 1, repaired.output
    assert "edited code ran" not in repaired.output
    assert code.read_bytes() == before


def test_pins_removed_by_hand_are_drift_and_come_back(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    for directory, _, names in os.walk(PATHS.pins):
        for name in names:
            Path(directory, name).unlink()
    repaired = run("site", sockops_cgroups=[cgroup])
    assert repaired.return_code == 0, repaired.output
    assert repaired.changed == 1
    assert run("site", sockops_cgroups=[cgroup]).changed == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"sockops_cgroups": ["no/such"]}, "no such cgroup", id="missing-cgroup"),
        pytest.param({"sockops_cgroups": ["/proc"]}, "outside", id="outside-the-mount"),
        pytest.param({"sockops_cgroups": [{"pth": "a"}]}, "check the spelling", id="unknown-key"),
        pytest.param({"sockops_ports": [0]}, "ports from 1 to 65535", id="port-0"),
        pytest.param({"sockops_ports": [65536]}, "ports from 1 to 65535", id="port-65536"),
        pytest.param({"sockops_ports": ["80-70"]}, "first not above last", id="reversed-range"),
        pytest.param({"sockops_mode": "fast"}, "one of on, off, drain", id="unknown-mode"),
    ],
)
def test_bad_input_is_refused_before_the_node_is_touched(
    run: Run, cgroup: str, variables: dict[str, Any], words: str
) -> None:
    refused = run("site", **{"sockops_cgroups": [cgroup], **variables})
    assert refused.return_code != 0
    assert refused.failed == 1
    assert words in " ".join(refused.output.split())
    assert nothing_of_ours()


def test_a_symlink_where_our_file_goes_is_refused_and_not_followed(
    run: Run, cgroup: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n", encoding="utf-8")
    Path(PATHS.configuration).mkdir()
    link = Path(PATHS.desired("sockops"))
    link.symlink_to(victim)
    try:
        refused = run("site", sockops_cgroups=[cgroup])
        assert refused.return_code != 0
        assert "a symlink there" in refused.output
        assert victim.read_text(encoding="utf-8") == "precious\n"
        assert not our_programs()
    finally:
        link.unlink()


def test_a_second_run_at_once_is_refused_and_names_the_first(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    Path(PATHS.runtime).mkdir(exist_ok=True)
    with Path(PATHS.lock).open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("another controller (process 1)")
        lock.flush()
        refused = run("site", sockops_cgroups=[cgroup], sockops_mode="off")
    assert refused.return_code != 0
    assert "held by another controller (process 1)" in " ".join(refused.output.split())


def test_what_an_operator_switched_off_stays_off_through_a_run(run: Run, cgroup: str) -> None:
    run("site", sockops_cgroups=[cgroup])
    subprocess.run([PATHS.command, "off", "sockops"], check=True)
    assert run("site", sockops_cgroups=[cgroup]).changed == 0
    subprocess.run([PATHS.command, "on", "sockops"], check=True)
    assert run("site", sockops_cgroups=[cgroup]).changed == 0
