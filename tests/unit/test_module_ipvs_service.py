"""The module ipvs_service on a simulated table, and its part in the plan of a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel import node
from meshaccel.ipvs import kernel_module
from meshaccel.ipvs import table as ipvs_table
from tests.support.accelerator import node_paths
from tests.support.modules import import_part, load_module, run_module
from tests.unit.file_tree import file_tree
from tests.unit.simulated_table import SimulatedTable

if TYPE_CHECKING:
    from meshaccel.paths import NodePaths

MODULE = "ipvs_service"
WEB: dict[str, Any] = {
    "address": "10.0.0.1",
    "port": 80,
    "scheduler": "rr",
    "servers": ["10.1.0.1:80", "10.1.0.2:80"],
}


@pytest.fixture
def places(tmp_path: Path) -> NodePaths:
    (tmp_path / "node").mkdir()
    return node_paths(tmp_path / "node", tmp_path / "bpffs")


@pytest.fixture
def table(places: NodePaths, monkeypatch: pytest.MonkeyPatch) -> SimulatedTable:
    """Have the module look at that node, which has IPVS without any service."""
    made = SimulatedTable()
    own = import_part("paths").NodePaths(**vars(places))
    monkeypatch.setattr(load_module(MODULE), "NodePaths", lambda: own)
    monkeypatch.setattr(import_part("ipvs.kernel_module"), "loaded", lambda: True)
    monkeypatch.setattr(import_part("ipvs.kernel_module"), "schedulers", lambda: frozenset({"rr"}))
    monkeypatch.setattr(import_part("ipvs.table"), "read", lambda _: made.read())
    monkeypatch.setattr(import_part("ipvs.messages"), "Kernel", lambda: made)
    return made


def call(*, check_mode: bool = False, **options: object) -> dict[str, Any]:
    return run_module(MODULE, check_mode=check_mode, **options)


def test_services_come_stay_and_go(table: SimulatedTable, places: NodePaths) -> None:
    made = call(services=[WEB])
    assert (made["changed"], made["messages"]) == (True, 3)
    assert made["actions"][-1] == {
        "kind": "ipvs.make_service",
        "summary": "make tcp 10.0.0.1:80 (rr) with 2 servers",
    }
    assert Path(places.desired(MODULE)).exists()
    again = call(services=[WEB])
    assert (again["changed"], again["messages"], again["actions"]) == (False, 0, [])
    table.sent = 0
    gone = call(state="absent", drain_seconds=0)
    assert (gone["changed"], gone["messages"], table.services) == (True, 1, {})
    assert file_tree(Path(places.configuration)) == {}


def test_check_mode_tells_the_same_and_does_nothing(table: SimulatedTable, places: NodePaths) -> None:
    checked = call(check_mode=True, services=[WEB])
    assert (table.sent, checked["messages"], Path(places.configuration).exists()) == (0, 0, False)
    done = call(services=[WEB])
    assert (checked["actions"], checked["diff"]) == (done["actions"], done["diff"])
    assert '"state": "absent"' in done["diff"]["before"]
    assert '"tcp 10.0.0.1:80": {' in done["diff"]["after"]


def test_bad_entries_are_told_all_at_once_and_nothing_changes(
    table: SimulatedTable, places: NodePaths
) -> None:
    bad = [{**WEB, "port": 70000 + number} for number in range(100)]
    failed = call(services=[WEB, *bad])
    assert failed["failed"] is True
    assert failed["found"].count("wanted a port from 0 to 65535; found 70") == 100
    assert (table.sent, Path(places.configuration).exists()) == (0, False)


def test_without_pyroute2_nothing_changes_and_it_is_named(
    table: SimulatedTable, places: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python has it for a module that cannot be imported.
    monkeypatch.setitem(sys.modules, import_part("ipvs.messages").__name__, None)
    failed = call(services=[WEB])
    assert "install python3-pyroute2 for the node's Python" in failed["msg"]
    assert (table.sent, Path(places.desired(MODULE)).exists()) == (0, False)


def test_of_many_steps_a_plan_of_the_node_tells_the_first(
    places: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "loaded", lambda: True)
    monkeypatch.setattr(ipvs_table, "read", lambda _: ())
    monkeypatch.setattr(kernel_module, "schedulers", lambda: None)
    many = [{**WEB, "port": port} for port in range(1, 201)]
    plan = node.plan_node({MODULE: {"services": many}}, places)
    assert plan.roles == ["preflight", MODULE]
    assert len(plan.drift[MODULE]) == node.MOST_DRIFT_TOLD + 1
    assert plan.drift[MODULE][-1] == "and 101 more"
    assert len(plan.after[MODULE]["services"]) == 200
    assert node.plan_node({MODULE: {"state": "absent"}}, places).roles == []
