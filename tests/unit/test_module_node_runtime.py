"""The module node_runtime, and the command that a real release puts on the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel import release_archive, runtime, runtime_service
from meshaccel.runtime import Desired
from tests.support.accelerator import OBJECT, ROOT, node_paths
from tests.support.modules import import_part, load_module, run_module
from tests.unit.file_tree import file_tree
from tests.unit.runtime_node import ABSENT, FIRST, SECOND, run_no_systemd, wish

if TYPE_CHECKING:
    from meshaccel.paths import NodePaths

MODULE = "node_runtime"
NODE_PYTHON = "/usr/bin/python3"
TIMEOUT_SECONDS = 30


@pytest.fixture
def node(tmp_path: Path) -> NodePaths:
    """Return a node in a folder."""
    root = tmp_path / "node"
    root.mkdir()
    return node_paths(root, root / "bpffs")


# ---- the module ----


@pytest.fixture
def installed_here(node: NodePaths, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the module work on that node, which has no systemd; return the node's folder."""
    own = import_part("paths").NodePaths(**vars(node))
    monkeypatch.setattr(load_module(MODULE), "NodePaths", lambda: own)
    monkeypatch.setattr(import_part("system.systemd"), "running", lambda: False)
    return Path(node.library).parent


def call(desired: Desired, *, check_mode: bool = False) -> dict[str, Any]:
    """Run the module with a wish; it has to succeed."""
    state = "present" if desired.present else "absent"
    result = run_module(
        MODULE, check_mode=check_mode, state=state, digest=desired.digest, archive=desired.archive
    )
    assert "failed" not in result, result
    return result


def test_check_mode_says_what_the_run_does_and_the_second_run_finds_nothing(installed_here: Path) -> None:
    checked = call(wish(FIRST), check_mode=True)
    assert file_tree(installed_here) == {}
    converged = call(wish(FIRST))
    assert checked["changed"]
    assert checked == converged
    assert converged["diff"]["before"] == '{\n  "state": "absent"\n}\n'

    again = call(wish(FIRST))
    assert (again["changed"], again["actions"]) == (False, [])
    assert again["diff"]["before"] == again["diff"]["after"] == converged["diff"]["after"]


def test_absent_takes_every_file_away(installed_here: Path) -> None:
    call(wish(FIRST))
    call(wish(SECOND))
    assert call(ABSENT)["changed"]
    assert file_tree(installed_here) == {}
    assert not call(ABSENT)["changed"]


@pytest.mark.usefixtures("installed_here")
def test_a_failure_says_what_was_wanted_found_and_what_to_do() -> None:
    result = run_module(MODULE)
    assert result["failed"] is True
    assert (result["wanted"], result["found"]) == ("the digest of the node release", "none")
    assert all(result[part] in result["msg"] for part in ("wanted", "found", "remedy"))


def test_a_failed_run_is_recorded(installed_here: Path, node: NodePaths) -> None:
    result = run_module(MODULE, digest="0" * 64, archive=wish(FIRST).archive)
    assert result["failed"] is True
    recorded = import_part("record").read(node)[MODULE]
    assert (recorded["phase"], recorded["error"]) == ("failed", result["msg"])
    assert sorted(file_tree(installed_here)) == ["configuration", "configuration/record.json"]


# ---- the command ----


@pytest.fixture
def command(node: NodePaths, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a release of the package as it is, as the node's own Python does; return the command."""
    run_no_systemd(monkeypatch)
    monkeypatch.setattr(sys, "executable", NODE_PYTHON)
    package = ROOT / "module_utils" / "meshaccel"
    manifest, archive = release_archive.build(str(package), str(OBJECT.parent))
    runtime_service.run(Desired(True, str(manifest["digest"]), archive), node)
    return node.command


def test_the_command_is_isolated_from_where_and_how_it_is_called(command: str, tmp_path: Path) -> None:
    for name in ("argparse.py", "meshaccel.py", "sitecustomize.py"):
        (tmp_path / name).write_text("raise SystemExit('not isolated')\n")
    finished = subprocess.run(
        [command, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "argparse.py")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("usage: meshaccel ")
    assert Path(command).read_text().startswith(f"#!{NODE_PYTHON} -I\n")


def test_the_command_runs_its_own_release_and_leaves_it_as_it_is(command: str, node: NodePaths) -> None:
    before = runtime.observe(node)
    where = (
        f"import sys; sys.path.insert(0, {node.release!r}); import meshaccel.command as c; print(c.__file__)"
    )
    shown = subprocess.run(
        [NODE_PYTHON, "-I", "-c", where], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
    )
    assert shown.stdout == f"{node.release}/meshaccel/command.py\n"
    subprocess.run([command, "--help"], capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    assert runtime.observe(node) == before
