"""The node's runtime: planned, installed, put back when a step fails, removed, and its command started."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import release, runtime, runtime_service
from meshaccel.bpf import libbpf
from meshaccel.errors import ApplyFailed, InvalidInput, MeshaccelError, NotOurs, Unsupported
from meshaccel.paths import NodePaths
from meshaccel.runtime import Desired, Observed
from meshaccel.system import systemd
from meshaccel.unit_actions import Unit
from tests.support.accelerator import node_paths
from tests.unit.file_tree import file_tree
from tests.unit.runtime_node import ABSENT, FIRST, SECOND, RuntimeNode, run_no_systemd, run_systemd, wish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshaccel.engine import BeforeAction, Handler
    from meshaccel.model import Action, Json

PATHS = NodePaths()
WISH = Desired(True, "a" * 64, "archive")
UNIT = Unit(runtime.UNIT_NAME, f"{PATHS.units}/{runtime.UNIT_NAME}", runtime.unit_text(PATHS), enabled=True)
EDITED = replace(UNIT, text=b"edited")
UP_TO_DATE = Observed(
    digest=WISH.digest,
    selected="current-release",
    releases=("current-release", "previous-release"),
    command=runtime.command_text(PATHS),
    systemd=True,
    unit=UNIT,
)
UNTOUCHED = Observed(None, None, (), None, systemd=True, unit=replace(UNIT, text=None, enabled=False))
INSTALL, PRUNE, WRITE, REMOVE = "release.install", "release.prune", "file.write", "file.remove"
ENABLE, DISABLE = "systemd.enable", "systemd.disable"
REMOVE_ALL, REMOVE_CONFIGURATION = "release.remove_all", "configuration.remove"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeNode:
    """Return an untouched node, with systemd and with the directories that every node has."""
    root = tmp_path / "node"
    (root / "units").mkdir(parents=True)
    made = RuntimeNode(node_paths(root, root / "bpffs"))
    run_systemd(made, tmp_path, monkeypatch)
    return made


def kinds(desired: Desired, observed: Observed) -> list[str]:
    """Return the kinds of action of a plan, in order."""
    return [action.kind for action in runtime.make_plan(desired, observed, PATHS)]


# ---- what is planned ----


@pytest.mark.parametrize(
    ("observed", "planned"),
    [
        (UNTOUCHED, [INSTALL, WRITE, WRITE, ENABLE, PRUNE]),
        (replace(UNTOUCHED, systemd=False, unit=None), [INSTALL, WRITE, PRUNE]),
        (UP_TO_DATE, []),
        (replace(UP_TO_DATE, systemd=False, unit=None), []),
        (replace(UP_TO_DATE, digest="b" * 64), [INSTALL, PRUNE]),
        (replace(UP_TO_DATE, digest=None), [INSTALL, PRUNE]),
        (replace(UP_TO_DATE, command=b"edited"), [WRITE]),
        (replace(UP_TO_DATE, command=None), [WRITE]),
        (replace(UP_TO_DATE, unit=EDITED), [WRITE, ENABLE]),
        (replace(UP_TO_DATE, command_executable=False), [WRITE]),
        (replace(UP_TO_DATE, unit=UNTOUCHED.unit), [WRITE, ENABLE]),
        (replace(UP_TO_DATE, unit=replace(UNIT, enabled=False)), [ENABLE]),
    ],
    ids=[
        "untouched",
        "untouched-no-systemd",
        "up-to-date",
        "up-to-date-no-systemd",
        "other-release",
        "dangling-release",
        "command-edited",
        "command-gone",
        "unit-edited",
        "command-not-executable",
        "unit-gone",
        "unit-disabled",
    ],
)
def test_what_is_installed_is_what_differs(observed: Observed, planned: list[str]) -> None:
    assert kinds(WISH, observed) == planned


@pytest.mark.parametrize(
    ("observed", "planned"),
    [
        (UNTOUCHED, []),
        (UP_TO_DATE, [DISABLE, REMOVE, REMOVE, REMOVE_ALL]),
        (replace(UP_TO_DATE, systemd=False, unit=None), [REMOVE, REMOVE_ALL]),
        (replace(UNTOUCHED, releases=("half-written",)), [REMOVE_ALL]),
        (replace(UNTOUCHED, selected="gone"), [REMOVE_ALL]),
        (replace(UNTOUCHED, command=b"edited"), [REMOVE]),
        (replace(UNTOUCHED, unit=EDITED), [DISABLE, REMOVE]),
        (replace(UNTOUCHED, configuration=()), [REMOVE_CONFIGURATION]),
        (replace(UNTOUCHED, configuration=("record.json",)), [REMOVE_CONFIGURATION]),
        (replace(UNTOUCHED, configuration=("record.json", "sockops.json")), []),
    ],
    ids=[
        "untouched",
        "installed",
        "no-systemd",
        "unused-release",
        "dangling",
        "command",
        "unit",
        "empty-configuration",
        "record",
        "wish-of-an-accelerator",
    ],
)
def test_what_is_removed_is_what_is_there(observed: Observed, planned: list[str]) -> None:
    assert kinds(ABSENT, observed) == planned


def test_the_previous_release_is_kept_and_selected_again_on_the_way_back() -> None:
    install, prune = runtime.make_plan(WISH, replace(UP_TO_DATE, digest="b" * 64), PATHS)
    assert prune.arguments == {"previous": ["current-release"]}
    assert install.undo[0].arguments == {"name": "current-release"}
    assert install.summary == f"install the node release {'a' * 16}"


def test_the_boot_unit_comes_before_what_is_known_and_what_is_named() -> None:
    named = replace(WISH, started_after=("sidecar@one.service", "nginx.service"))
    write, enable = runtime.make_plan(named, UP_TO_DATE, PATHS)
    assert (write.kind, enable.kind) == (WRITE, ENABLE)
    before = next(line for line in str(write.arguments["text"]).splitlines() if line.startswith("Before="))
    units = before.removeprefix("Before=").split()
    assert {"kubelet.service", "istio.service", "envoy.service", "sidecar@one.service"} <= set(units)
    assert units.count("nginx.service") == 1


# ---- the wish ----


@pytest.mark.parametrize(
    "units",
    [["envoy"], ["a b.service"], ["a.service\nExecStart=/bin/sh"], [""], [7], "envoy", {"envoy.service": 1}],
    ids=repr,
)
def test_what_is_no_name_of_a_unit_is_refused(units: object) -> None:
    with pytest.raises(InvalidInput, match="names of systemd units"):
        runtime.parse({"digest": "a" * 64, "started_after": units})


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"state": "gone", "digest": "a"}, "'gone'"),
        ({}, "none"),
        ({"state": "present", "digest": ""}, "none"),
    ],
)
def test_a_wish_that_is_none_is_refused(raw: Mapping[str, Json], found: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        runtime.parse(raw)
    assert caught.value.found == found


def test_a_wish_is_present_unless_it_says_otherwise_and_absent_needs_no_release() -> None:
    assert runtime.parse({"digest": "a", "archive": "b"}) == Desired(True, "a", "b")
    assert runtime.parse({"state": "absent", "digest": None}) == ABSENT


# ---- what is done ----


def test_a_first_install_and_a_second_run(node: RuntimeNode) -> None:
    result = runtime_service.run(wish(FIRST), node.paths)
    assert [action.kind for action in result.actions] == [INSTALL, WRITE, WRITE, ENABLE, PRUNE]
    assert result.before == {"state": "absent"}
    assert node.enabled
    assert node.calls == ["daemon-reload", f"enable {runtime.UNIT_NAME}"]
    assert node.unit.read_text().count(f"ExecStart={node.paths.command} restore\n") == 1
    assert Path(node.paths.command).stat().st_mode & 0o777 == 0o755
    assert Path(node.paths.bpf_object("sockops")).read_bytes() == b"first"

    again = runtime_service.run(wish(FIRST), node.paths)
    assert not again.changed
    assert again.before == again.after == result.after


def test_check_mode_tells_the_run_and_does_nothing(node: RuntimeNode) -> None:
    checked = runtime_service.run(wish(FIRST), node.paths, check_mode=True)
    assert node.in_use() == {}
    converged = runtime_service.run(wish(FIRST), node.paths)
    assert checked == converged


@pytest.mark.parametrize("spoilt", ["command", "unit", "release", "object"])
def test_what_was_edited_by_hand_is_written_anew(node: RuntimeNode, spoilt: str) -> None:
    node.install()
    wanted = {name: entry for name, entry in node.in_use().items() if not name.startswith("library")}
    places = {
        "command": node.paths.command,
        "unit": str(node.unit),
        "release": f"{node.paths.release}/meshaccel/__init__.py",
        "object": node.paths.bpf_object("sockops"),
    }
    Path(places[spoilt]).write_bytes(b"\xff edited")
    assert runtime_service.run(wish(FIRST), node.paths).changed
    assert {name: node.in_use()[name] for name in wanted} == wanted
    assert release.installed_digest(node.paths.release) == release.digest_of(FIRST)


def test_an_update_keeps_the_release_before_and_no_older_one(node: RuntimeNode) -> None:
    selections = []
    for contents in (FIRST, SECOND, FIRST):
        node.install(contents)
        selections.append(release.selected(node.paths.library))
    assert set(release.names(node.paths.library)) == set(selections[1:])
    assert selections[0] not in selections[1:]


def test_a_unit_that_systemd_refuses_is_an_error_with_what_systemctl_said(node: RuntimeNode) -> None:
    node.refuse("enable")
    with pytest.raises(ApplyFailed, match=r"wanted systemctl enable .*; found refused: enable"):
        node.install()
    assert node.in_use() == {}


def test_systemctl_that_says_nothing_is_told_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\nexit 4\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeshaccelError, match="wanted systemctl daemon-reload; found exit code 4"):
        systemd.control("daemon-reload")


def test_systemd_runs_where_its_mark_is(tmp_path: Path) -> None:
    assert systemd.running(str(tmp_path))
    assert not systemd.running(str(tmp_path / "system"))


# ---- the way back ----


def fail_after(number: int) -> Callable[[NodePaths], dict[str, Handler]]:
    """Return the handlers, of which the one called for the action of this number fails once it is done."""
    real, calls = runtime_service.handlers, itertools.count()

    def failing(handler: Handler) -> Handler:
        def call(arguments: Mapping[str, Json]) -> None:
            handler(arguments)
            if next(calls) == number:
                raise OSError(5, "injected")

        return call

    return lambda paths: {kind: failing(handler) for kind, handler in real(paths).items()}


def refuse_before(number: int) -> BeforeAction:
    """Return a hook that keeps the action of this number from running."""
    calls = itertools.count()

    def hook(_: Action) -> None:
        if next(calls) == number:
            raise OSError(5, "injected")

    return hook


def prepare(node: RuntimeNode, start: str) -> None:
    """Bring the node to where a run begins."""
    if start == "untouched":
        return
    node.install(SECOND)
    if start == "edited":
        Path(node.paths.command).write_bytes(b"\xff\0 edited")
        node.unit.write_text("edited")


@pytest.mark.parametrize(
    ("start", "desired", "steps"),
    [
        ("untouched", wish(FIRST), 5),
        ("installed", wish(FIRST), 2),
        ("edited", wish(FIRST), 5),
        # The step after these removes the releases; it is the last, since there is no way back from it.
        ("installed", ABSENT, 3),
        ("edited", ABSENT, 3),
    ],
    ids=["untouched", "installed", "edited", "installed-absent", "edited-absent"],
)
def test_a_run_that_fails_at_any_step_leaves_the_node_as_it_was(
    node: RuntimeNode, monkeypatch: pytest.MonkeyPatch, start: str, desired: Desired, steps: int
) -> None:
    prepare(node, start)
    before = node.in_use()
    plan = runtime.make_plan(desired, runtime.observe(node.paths), node.paths)
    for number, action in enumerate(plan[:steps]):
        with monkeypatch.context() as patch:
            patch.setattr(runtime_service, "handlers", fail_after(number))
            with pytest.raises(ApplyFailed, match="injected") as after:
                runtime_service.run(desired, node.paths)
        with pytest.raises(ApplyFailed, match="injected") as instead:
            runtime_service.run(desired, node.paths, before_action=refuse_before(number))
        for caught in (after, instead):
            assert (caught.value.wanted, caught.value.undo_errors) == (action.summary, ())
        assert node.in_use() == before
    assert len(plan) == steps + (not desired.present)


def test_nothing_is_left_of_a_first_install_that_failed(node: RuntimeNode) -> None:
    before = file_tree(Path(node.paths.library).parent)
    with pytest.raises(ApplyFailed):
        runtime_service.run(wish(FIRST), node.paths, before_action=refuse_before(1))
    assert file_tree(Path(node.paths.library).parent) == before


def test_an_archive_that_is_not_what_was_asked_for_changes_nothing(node: RuntimeNode) -> None:
    node.install(FIRST)
    before = file_tree(Path(node.paths.library).parent)
    other = replace(wish(SECOND), archive=wish(FIRST).archive)
    with pytest.raises(ApplyFailed, match="an archive with other contents"):
        runtime_service.run(other, node.paths)
    assert file_tree(Path(node.paths.library).parent) == before


@pytest.mark.parametrize("place", ["command", "unit"])
def test_a_symlink_in_the_place_of_a_file_is_refused_and_left(node: RuntimeNode, place: str) -> None:
    path = Path(node.paths.command) if place == "command" else node.unit
    path.symlink_to("theirs")
    with pytest.raises(NotOurs, match="found a symlink there"):
        node.install()
    assert list(node.in_use()) == [str(path.relative_to(Path(node.paths.library).parent))]


# ---- removal ----


def test_removal_leaves_nothing(node: RuntimeNode) -> None:
    before = file_tree(Path(node.paths.library).parent)
    node.install(FIRST)
    node.install(SECOND)
    removed = runtime_service.run(ABSENT, node.paths)
    assert removed.after == {"state": "absent"}
    assert not node.enabled
    assert node.calls[-1] == f"disable {runtime.UNIT_NAME} --now"
    node.log.unlink()
    (node.unit.parent / "multi-user.target.wants").rmdir()
    assert file_tree(Path(node.paths.library).parent) == before
    assert not runtime_service.run(ABSENT, node.paths).changed


def test_the_runtime_is_not_removed_from_under_an_accelerator(node: RuntimeNode) -> None:
    node.install()
    before = node.in_use()
    Path(node.paths.pins, "sockops").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"still loaded: sockops; .* state absent"):
        runtime_service.run(ABSENT, node.paths)
    assert node.in_use() == before
    assert runtime_service.run(ABSENT, node.paths, check_mode=True).changed

    Path(node.paths.pins, "sockops").rmdir()
    assert runtime_service.run(ABSENT, node.paths).changed


def test_releases_that_were_removed_in_part_are_not_said_to_be_back(
    node: RuntimeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed_in_part(library: str) -> None:
        release.remove(library, release.names(library)[0])
        raise OSError(5, "injected")

    node.install()
    monkeypatch.setattr(release, "remove_all", removed_in_part)
    with pytest.raises(ApplyFailed, match=r"not all was undone .* run the playbook again"):
        runtime_service.run(ABSENT, node.paths)


# ---- what is said ----


def test_without_systemd_the_operator_is_told_what_was_not_installed(
    node: RuntimeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_no_systemd(monkeypatch)
    (note,) = runtime_service.run(wish(FIRST), node.paths).notes
    init = Path("/proc/1/comm").read_text().strip()
    assert note.startswith(f"PID 1 is {init}, not systemd: {runtime.UNIT_NAME} was not installed")
    assert "`meshaccel restore`" in note
    assert node.calls == []
    assert not node.unit.exists()
    assert runtime_service.run(ABSENT, node.paths).notes == ()


def test_with_systemd_there_is_nothing_to_say(node: RuntimeNode) -> None:
    assert runtime_service.run(wish(FIRST), node.paths).notes == ()


def test_whether_the_node_has_libbpf_is_told(node: RuntimeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise Unsupported(wanted="libbpf", found="none", remedy="install it")

    monkeypatch.setattr(libbpf, "open_library", lambda: None)
    assert runtime_service.run(wish(FIRST), node.paths).has_libbpf
    monkeypatch.setattr(libbpf, "open_library", missing)
    assert not runtime_service.run(wish(FIRST), node.paths).has_libbpf
