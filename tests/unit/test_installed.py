"""The installed package plans the node when it is the one that is wished, and is not touched otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel import installed, node, release, release_archive, runtime_service
from meshaccel.errors import MeshaccelError, NotOurs
from tests.support.accelerator import OBJECT, ROOT, node_paths
from tests.support.modules import import_part, load_module, run_module
from tests.unit.file_tree import file_tree
from tests.unit.runtime_node import run_no_systemd, wish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from meshaccel.paths import NodePaths

MODULE = "node_drift"
TIMEOUT_SECONDS = 30
ERRORS = (ROOT / "module_utils/meshaccel/errors.py").read_bytes()
PLANS = b"""from types import SimpleNamespace

def plan_node(wishes, paths):
    drift = {"sockops": [wishes["sockops"]["mode"], paths.library]}
    return SimpleNamespace(roles=["sockops"], drift=drift, before={}, after={"code": __file__})
"""
REFUSES = b"""from .errors import InvalidInput

def plan_node(wishes, paths):
    raise InvalidInput(wanted="a port", found="port 0", remedy="correct it")
"""
SOCKOPS = {"mode": "off"}


def contents_with(plan: bytes) -> dict[str, bytes]:
    """Return a release whose planning is replaced by this source."""
    return {"meshaccel/__init__.py": b"", "meshaccel/errors.py": ERRORS, "meshaccel/node.py": plan}


def install(contents: Mapping[str, bytes], paths: NodePaths) -> dict[str, Any]:
    """Install a release; return the wish for it and for sockops."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_no_systemd(monkeypatch)
        runtime_service.run(wish(contents), paths)
    return {"node_runtime": {"digest": wish(contents).digest}, "sockops": SOCKOPS}


def in_release(paths: NodePaths, name: str) -> Path:
    """Return a file of the release in use, by its path without a link."""
    return Path(paths.release).resolve() / "meshaccel" / name


@pytest.fixture
def places(tmp_path: Path) -> NodePaths:
    """Return an untouched node."""
    root = tmp_path / "node"
    root.mkdir()
    return node_paths(root, root / "bpffs")


def forget_the_package() -> dict[str, ModuleType]:
    """Have Python import the package anew, wherever it then finds it; return what was imported."""
    names = [name for name in sys.modules if name.partition(".")[0] == installed.PACKAGE]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture(autouse=True)
def _as_in_a_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing imported as `meshaccel`, as in a module's process; afterwards all is as it was."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = (list(sys.path), False)
    ours = forget_the_package()
    yield
    forget_the_package()
    sys.modules.update(ours)
    assert (sys.path, sys.dont_write_bytecode) == before


def nothing_imported() -> bool:
    """Whether no part of an installed package was imported."""
    return installed.PACKAGE not in sys.modules


# ---- the wished release is installed ----


def test_the_installed_code_plans(places: NodePaths) -> None:
    plan = installed.plan_node(install(contents_with(PLANS), places), places)
    assert plan is not None
    assert (plan.roles, plan.before) == (["sockops"], {})
    assert plan.drift == {"sockops": ["off", places.library]}
    assert plan.after == {"code": str(in_release(places, "node.py"))}


def test_a_real_release_plans_as_the_controller_s_code_does(places: NodePaths) -> None:
    _, archive = release_archive.build(str(ROOT / "module_utils/meshaccel"), str(OBJECT.parent))
    wishes = {**install(release_archive.unpack(archive), places), "sockops": None}
    ours, plan = node.plan_node(wishes, places), installed.plan_node(wishes, places)
    assert plan is not None
    assert type(plan) is not type(ours)
    assert (plan.roles, plan.drift, plan.before, plan.after) == (
        ours.roles,
        ours.drift,
        ours.before,
        ours.after,
    )


@pytest.mark.parametrize("compiled", [True, False])
def test_planning_leaves_the_release_as_it_is_compiled_or_not(places: NodePaths, *, compiled: bool) -> None:
    wishes = install(contents_with(PLANS), places)
    cache = in_release(places, "__pycache__")
    assert list(cache.glob("node.*.pyc"))
    if not compiled:
        shutil.rmtree(cache)
    before = file_tree(Path(places.library))
    assert installed.plan_node(wishes, places) is not None
    assert file_tree(Path(places.library)) == before


def test_bytecode_of_other_sources_is_not_run_even_if_size_and_time_are_theirs(places: NodePaths) -> None:
    install(contents_with(PLANS), places)
    code = in_release(places, "node.py")
    before = code.stat()
    code.write_bytes(PLANS.replace(b'["sockops"], drift', b'["SOCKOPS"], drift'))
    os.utime(code, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert code.stat().st_size == before.st_size

    digest = release.installed_digest(places.release)
    plan = installed.plan_node({"node_runtime": {"digest": digest}, "sockops": SOCKOPS}, places)

    assert plan is not None
    assert plan.roles == ["SOCKOPS"]


def test_what_was_hashed_is_what_runs_when_another_run_selects_a_release_meanwhile(
    places: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = install(contents_with(PLANS), places)
    hashed = in_release(places, "node.py")
    digest_of_installed = release.installed_digest

    def then_another_is_selected(directory: str) -> str | None:
        digest = digest_of_installed(directory)
        monkeypatch.setattr(release, "installed_digest", digest_of_installed)
        install(contents_with(REFUSES), places)
        return digest

    monkeypatch.setattr(release, "installed_digest", then_another_is_selected)
    plan = installed.plan_node(wishes, places)
    assert in_release(places, "node.py") != hashed
    assert plan is not None
    assert plan.after == {"code": str(hashed)}


# ---- it is not ----


@pytest.mark.parametrize("runtime_wish", [None, {}, {"digest": None}, {"digest": ""}, {"digest": "0" * 64}])
@pytest.mark.parametrize("is_installed", [True, False])
def test_another_release_or_none_is_not_used(
    places: NodePaths, runtime_wish: dict[str, str] | None, *, is_installed: bool
) -> None:
    if is_installed:
        install(contents_with(PLANS), places)
    assert installed.plan_node({"node_runtime": runtime_wish, "sockops": SOCKOPS}, places) is None
    assert installed.plan_node({"sockops": SOCKOPS}, places) is None
    assert nothing_imported()


def test_a_node_without_a_release_is_not_planned_and_stays_without(places: NodePaths) -> None:
    wishes = {"node_runtime": {"digest": wish(contents_with(PLANS)).digest}}
    assert installed.plan_node(wishes, places) is None
    assert not Path(places.library).exists()


@pytest.mark.parametrize("name", ["node.py", "errors.py", "added.py"])
def test_a_release_edited_by_hand_is_not_run(places: NodePaths, name: str) -> None:
    wishes = install(contents_with(PLANS), places)
    with in_release(places, name).open("ab") as stream:
        stream.write(b"raise SystemExit('edited code ran')\n")
    assert installed.plan_node(wishes, places) is None
    assert nothing_imported()


def test_a_release_with_a_file_less_is_not_run(places: NodePaths) -> None:
    wishes = install(contents_with(PLANS), places)
    in_release(places, "errors.py").unlink()
    assert installed.plan_node(wishes, places) is None
    assert nothing_imported()


def test_a_symlink_among_its_files_is_refused_as_everywhere(places: NodePaths, tmp_path: Path) -> None:
    wishes = install(contents_with(PLANS), places)
    code = in_release(places, "node.py")
    code.rename(tmp_path / "node.py")
    code.symlink_to(tmp_path / "node.py")
    with pytest.raises(NotOurs, match="a symlink there"):
        installed.plan_node(wishes, places)
    assert nothing_imported()


# ---- it fails ----


def test_an_error_of_the_installed_code_is_handed_on_as_ours(places: NodePaths) -> None:
    wishes = install(contents_with(REFUSES), places)
    with pytest.raises(MeshaccelError) as caught:
        installed.plan_node(wishes, places)
    error = caught.value
    assert (error.wanted, error.found, error.remedy) == ("a port", "port 0", "correct it")
    assert type(error.__cause__).__module__ == "meshaccel.errors"
    assert not isinstance(error.__cause__, MeshaccelError)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (b"import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        (b"def plan_node(:\n", "SyntaxError: invalid syntax"),
        (b"raise TypeError('unexpected argument slots')\n", "TypeError: unexpected argument slots"),
    ],
)
def test_a_package_that_python_cannot_import_is_told_with_the_python_that_could_not(
    places: NodePaths, source: bytes, found: str
) -> None:
    wishes = install(contents_with(source), places)
    with pytest.raises(MeshaccelError) as caught:
        installed.plan_node(wishes, places)
    assert caught.value.found.startswith(found)
    assert sys.executable in caught.value.found
    assert str(in_release(places, "node.py").parents[1]) in caught.value.wanted
    assert "ansible_python_interpreter" in caught.value.remedy


# ---- the module ----


@pytest.fixture
def module_places(places: NodePaths, monkeypatch: pytest.MonkeyPatch) -> NodePaths:
    """Have the module look at that node."""
    own = import_part("paths").NodePaths(**vars(places))
    monkeypatch.setattr(load_module(MODULE), "NodePaths", lambda: own)
    return places


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_module_tells_what_the_installed_code_planned(
    module_places: NodePaths, *, check_mode: bool
) -> None:
    wishes = install(contents_with(PLANS), module_places)
    result = run_module(MODULE, check_mode=check_mode, **wishes)
    assert (result["planned"], result["changed"]) == (True, False)
    assert result["roles"] == ["sockops"]
    assert result["drift"] == {"sockops": ["off", module_places.library]}
    assert result["diff"]["before"] == "{}\n"
    assert str(in_release(module_places, "node.py")) in result["diff"]["after"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_module_without_the_wished_code_plans_nothing_and_shows_no_difference(
    module_places: NodePaths, *, check_mode: bool
) -> None:
    result = run_module(MODULE, check_mode=check_mode, node_runtime={"digest": "0" * 64}, sockops=SOCKOPS)
    assert (result["planned"], result["changed"]) == (False, False)
    assert (result["roles"], result["drift"]) == ([], {})
    assert "diff" not in result
    assert file_tree(Path(module_places.library).parent) == {}


@pytest.mark.parametrize("source", [REFUSES, b"import no_such_library\n"])
def test_the_module_fails_with_what_was_wanted_found_and_what_to_do(
    module_places: NodePaths, source: bytes
) -> None:
    result = run_module(MODULE, **install(contents_with(source), module_places))
    assert result["failed"] is True
    assert all(result[word] in result["msg"] for word in ("wanted", "found", "remedy"))


def test_the_module_takes_what_node_plan_takes() -> None:
    assert load_module(MODULE).ARGUMENTS == load_module("node_plan").ARGUMENTS


@pytest.mark.parametrize("name", ["installed", "report"])
def test_what_every_run_sends_needs_no_accelerator_and_no_bpf(name: str) -> None:
    listing = f"import sys, meshaccel.{name}; print(*(n for n in sys.modules if n.startswith('meshaccel.')))"
    shown = subprocess.run(
        [sys.executable, "-c", listing],
        env={"PYTHONPATH": str(ROOT / "module_utils")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    needed = {imported.split(".")[1] for imported in shown.stdout.split()}
    assert needed <= {name, "engine", "errors", "model", "paths", "release", "system"}
