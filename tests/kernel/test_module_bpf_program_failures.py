"""The module bpf_program when something stands in its way: what it says, and what it leaves."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel import lock
from meshaccel.bpf import attach
from meshaccel.bpf.declared import converge
from meshaccel.bpf.programs import PinnedProgram
from meshaccel.errors import ApplyFailed
from tests.kernel.bpf_objects import PIN, Node, own_node, wish
from tests.support.cgroups import TestCgroup
from tests.support.modules import ROOT, import_part
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshaccel.model import Action
    from tests.kernel.topologies import Cgroups

MODULE = "bpf_program"
ABSENT: dict[str, Any] = {"pin": PIN, "state": "absent"}
#: Runs a wish and dies, as by SIGKILL, before the action of a number.
DYING = """
import json, os, sys
from meshaccel.bpf.declared import converge
from meshaccel.bpf.programs import PinnedProgram
from meshaccel.paths import NodePaths

places, parameters, number = map(json.loads, sys.argv[1:])
paths, passed = NodePaths(**places), []

def die_there(action):
    passed.append(action)
    if len(passed) > number:
        os._exit(9)

converge(PinnedProgram.parse(parameters, paths), paths, before_action=die_there)
"""
DIED = 9


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with nothing on it."""
    with own_node() as made:
        yield made


@pytest.fixture(scope="module")
def third() -> Iterator[TestCgroup]:
    """A cgroup beside the client's and the server's."""
    with TestCgroup("third") as made:
        yield made


def change_of(name: str, cgroups: Cgroups, third: TestCgroup) -> dict[str, Any]:
    """Return parameters; those of an update make, swap and remove links and a map."""
    if name == "remove":
        return ABSENT
    return wish(2, cgroups.client, third, maximum_entries={"skipped_ports": 5})


def prepare(name: str, node: Node, cgroups: Cgroups) -> None:
    """Have the first version there, unless it is to be installed."""
    if name != "install":
        node.done(MODULE, **wish(1, cgroups.client, cgroups.server))


def running(*cgroups: TestCgroup) -> list[tuple[int, ...]]:
    """Return the ids of the programs that run in each cgroup."""
    return [attach.programs_at(str(cgroup.path)) for cgroup in cgroups]


# ---- failures on the way ----


@pytest.mark.parametrize("change", ["install", "update", "remove"])
def test_a_failure_at_any_step_leaves_everything_as_it_was(
    node: Node, cgroups: Cgroups, third: TestCgroup, change: str
) -> None:
    """Down to the kernel's ids of programs, maps and links: the way back is no second installation."""
    prepare(change, node, cgroups)
    parameters = change_of(change, cgroups, third)
    everywhere = (cgroups.client, cgroups.server, third)
    before = node.pins(), running(*everywhere)
    steps = len(node.done(MODULE, check_mode=True, **parameters)["actions"])
    program = PinnedProgram.parse(parameters, node.paths)

    for failing in range(steps):
        passed: list[Action] = []

        def fail_there(action: Action, at: int = failing, passed: list[Action] = passed) -> None:
            passed.append(action)
            if len(passed) > at:
                raise OSError("injected")

        with pytest.raises(ApplyFailed, match="injected") as raised:
            converge(program, node.paths, before_action=fail_there)
        assert raised.value.undo_errors == ()
        assert (node.pins(), running(*everywhere)) == before

    converge(program, node.paths)
    assert (node.pins(), running(*everywhere)) != before


@pytest.mark.parametrize("change", ["install", "update", "remove"])
def test_a_run_that_was_killed_at_any_step_is_completed_by_the_next(
    cgroups: Cgroups, third: TestCgroup, change: str
) -> None:
    parameters = change_of(change, cgroups, third)
    steps = itertools.count()
    while run_and_die(change, cgroups, parameters, next(steps)):
        assert len(running(cgroups.client)[0]) == 0
    assert next(steps) > 4


def run_and_die(change: str, cgroups: Cgroups, parameters: dict[str, Any], number: int) -> bool:
    """Kill a run before the action of a number, and complete it; False when it has no such action."""
    with own_node() as node:
        prepare(change, node, cgroups)
        words = [json.dumps(part) for part in (dataclasses.asdict(node.paths), parameters, number)]
        command = [sys.executable, "-c", DYING, *words]
        environment = {"PYTHONPATH": str(ROOT / "module_utils")}
        status = subprocess.run(command, env=environment, check=False, timeout=60).returncode
        assert status in {DIED, 0}

        node.done(MODULE, **parameters)

        assert node.done(MODULE, **parameters)["changed"] is False
        assert len(running(cgroups.client)[0]) == (0 if change == "remove" else 1)
        node.done(MODULE, **ABSENT)
        assert node.pins() == {}
        return status == DIED


# ---- refusals ----


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"program": "count_conections"}, "count_connections"),
        ({"program": "refused_by_the_verifier"}, "invalid mem access"),
        ({"constants": {"stp": 1}}, "step (near)"),
        ({"constants": {"step": 1 << 32}}, "4294967296"),
        ({"maximum_entries": {"skipped_port": 1}}, "skipped_ports (near)"),
        ({"maximum_entries": {"skipped_ports": 0}}, "0"),
        ({"reuse_maps": {"connections": "none"}}, "no such pin"),
        ({"object": "/nonexistent/count.bpf.o"}, "no such file"),
        ({"object": "/etc/passwd"}, "read the BTF"),
        ({"cgroups": ["no/such/cgroup"]}, "no such cgroup"),
        ({"cgroups": ["../../etc"]}, "outside"),
        ({"cgroups": [".", "."]}, "second time"),
        ({"pin": "../count"}, "outside"),
        ({"pin": "count.v1"}, "count.v1"),
        ({"pin": "sockops/programs/count"}, "sockops"),
        ({"pin": "staged"}, "staged"),
        ({"reuse_maps": {"connections": "count_maps/connections"}}, "its own"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_a_wrong_wish_is_refused_with_a_reason_and_nothing_changed(
    node: Node, settings: dict[str, Any], found: str
) -> None:
    result = node.run(MODULE, **{**wish(1), **settings})
    assert result["failed"] is True
    assert found in result["found"]
    assert result["remedy"]
    assert not Path(node.paths.bpffs).exists()


def test_a_program_of_no_cgroup_is_pinned_and_refused_cgroups(node: Node, cgroups: Cgroups) -> None:
    parameters = wish(1, cgroups.client, program="attaches_to_no_cgroup")
    assert "type 1" in node.run(MODULE, **parameters)["found"]
    node.done(MODULE, **{**parameters, "cgroups": []})
    assert set(node.pins()) == {PIN}


def test_a_map_of_another_shape_is_not_reused(node: Node) -> None:
    node.done(MODULE, **wish(1))
    reuse = {"connections": f"{PIN}_maps/skipped_ports"}
    result = node.run(MODULE, **wish(1, pin="reader", reuse_maps=reuse))
    assert "type 1, key 2 and value 4 bytes" in result["found"]
    assert "type 2, key 4 and value 8 bytes" in result["wanted"]


def test_a_cgroup_that_somebody_holds_alone_is_named_with_its_holder(node: Node, cgroups: Cgroups) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    before = node.pins()
    with own_node() as elsewhere, TestCgroup("held") as held:
        elsewhere.done(MODULE, **wish(1))
        words = [str(held.path), "cgroup_sock_ops", "pinned", str(elsewhere.pin(PIN))]
        run(["bpftool", "cgroup", "attach", *words])

        result = node.run(MODULE, **wish(2, cgroups.client, held))

        assert "held exclusively by count_connecti" in result["found"]
        assert node.pins() == before


def test_a_run_waits_for_the_one_before_and_names_it_in_vain(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_part("bpf.declared"), "node_lock", impatient(import_part("lock").node_lock))
    with lock.node_lock(node.paths, "a long run"):
        result = node.run(MODULE, **ABSENT)
    assert "a long run" in result["found"]


def impatient(node_lock: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same lock, that waits for nobody."""
    return lambda paths, purpose: node_lock(paths, purpose, 0.0)


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("standing", ["map", "directory", "symlink", "symlink above"])
def test_what_is_not_a_program_of_ours_is_left_alone(node: Node, standing: str, state: str) -> None:
    node.done(MODULE, **wish(1, pin="other"))
    name, pin = PIN, node.pin(PIN)
    if standing == "map":
        node.pin("other_maps/events").rename(pin)
    elif standing == "directory":
        pin.mkdir()
    elif standing == "symlink":
        pin.symlink_to(node.pin("other"))
    else:
        name = "elsewhere/other"
        node.pin("elsewhere").symlink_to(node.paths.pins)
    before = node.pins()

    result = node.run(MODULE, **wish(1, pin=name, state=state))

    assert result["failed"] is True
    assert standing.split(maxsplit=1)[0] in result["found"]
    assert node.pins() == before


def test_a_read_only_bpffs_is_named(node: Node) -> None:
    bpffs = Path(node.paths.bpffs)
    bpffs.mkdir()
    run(["mount", "-t", "bpf", "-o", "ro", "none", str(bpffs)])
    result = node.run(MODULE, **wish(1))
    assert "read-only" in result["found"]
    assert "remount,rw" in result["remedy"]
