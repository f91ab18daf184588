"""The whole node in one look: which roles run and in which order, and that looking changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel import node, runtime, runtime_service
from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.bpf import libbpf
from meshaccel.errors import InvalidInput, Unsupported
from meshaccel.node import NodePlan, Part, plan_node
from meshaccel.system import cgroups
from tests.support.accelerator import ROOT, node_paths
from tests.support.modules import import_part, load_module, run_module
from tests.unit.file_tree import file_tree
from tests.unit.runtime_node import FIRST, run_no_systemd, wish

if TYPE_CHECKING:
    from meshaccel.model import Json
    from meshaccel.paths import NodePaths
    from meshaccel.system.cgroups import Hierarchy

MODULE = "node_plan"
OBJECT_DIGEST = hashlib.sha256(FIRST["bpf/sockops.bpf.o"]).hexdigest()[:16]
RUNTIME = {"digest": wish(FIRST).digest}
SOCKOPS = {"cgroups": ["system.slice"], "object_digest": OBJECT_DIGEST}
ABSENT = {"state": "absent"}


@pytest.fixture
def places(tmp_path: Path, hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> NodePaths:
    """Return an untouched node without systemd; its cgroups are system.slice/web.service and pods/one."""
    run_no_systemd(monkeypatch)
    monkeypatch.setattr(cgroups, "hierarchy", lambda: hierarchy)
    monkeypatch.setattr(libbpf, "open_library", lambda: None)
    root = tmp_path / "node"
    root.mkdir()
    return node_paths(root, root / "bpffs")


def part(name: str, *, present: bool = True, drifted: bool = True) -> Part:
    """Return a part of a plan."""
    return Part(name, present, (f"bring {name}",) if drifted else (), {"was": name}, {"is": name})


# ---- which roles, in which order ----


@pytest.mark.parametrize(
    ("parts", "roles"),
    [
        ([], []),
        ([part("a", drifted=False), part("b", drifted=False)], []),
        ([part("a"), part("b")], ["preflight", "a", "b"]),
        ([part("a", drifted=False), part("b")], ["preflight", "b"]),
        ([part("a", present=False), part("b", present=False)], ["b", "a"]),
        ([part("a", present=False, drifted=False), part("b", present=False)], ["b"]),
        ([part("a"), part("b", present=False)], ["b", "preflight", "a"]),
    ],
    ids=["none", "as-wished", "coming", "one-coming", "going", "one-going", "both"],
)
def test_what_goes_goes_first_in_reverse_and_what_comes_is_preceded_by_preflight(
    parts: list[Part], roles: list[str]
) -> None:
    assert NodePlan(tuple(parts)).roles == roles


def test_drift_names_only_the_parts_that_differ() -> None:
    plan = NodePlan((part("a"), part("b", drifted=False)))
    assert plan.drift == {"a": ["bring a"]}
    assert plan.before == {"a": {"was": "a"}, "b": {"was": "b"}}
    assert plan.after == {"a": {"is": "a"}, "b": {"is": "b"}}


# ---- planned from wishes ----


def test_an_untouched_node_needs_every_role_that_is_wished(places: NodePaths) -> None:
    plan = plan_node({"node_runtime": RUNTIME, "sockops": SOCKOPS}, places)
    assert plan.roles == ["preflight", "node_runtime", "sockops"]
    assert plan.before == {"node_runtime": ABSENT, "sockops": ABSENT}
    assert plan.after["node_runtime"]["release"] == RUNTIME["digest"][:16]
    assert plan.after["sockops"]["cgroups"].keys() == {"system.slice"}
    assert plan.after["sockops"]["object"] == OBJECT_DIGEST


@pytest.mark.parametrize("wishes", [{}, {"node_runtime": None, "sockops": None}, {"sockops": None}])
def test_parts_without_a_wish_are_not_managed(places: NodePaths, wishes: dict[str, None]) -> None:
    runtime_service.run(wish(FIRST), places)
    assert plan_node(wishes, places) == NodePlan(())


def test_a_node_as_wished_has_no_role_to_run(places: NodePaths) -> None:
    runtime_service.run(wish(FIRST), places)
    plan = plan_node({"node_runtime": RUNTIME, "sockops": ABSENT}, places)
    assert (plan.roles, plan.drift) == ([], {})
    assert plan.before == plan.after


def test_a_removal_takes_the_accelerator_before_the_runtime(places: NodePaths) -> None:
    runtime_service.run(wish(FIRST), places)
    Path(places.configuration).mkdir()
    Path(places.desired("sockops")).write_text("{}")
    plan = plan_node({"node_runtime": ABSENT, "sockops": ABSENT}, places)
    assert plan.roles == ["sockops", "node_runtime"]


def test_a_missing_libbpf_is_drift_of_a_runtime_that_is_wished(
    places: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise Unsupported(wanted="libbpf", found="none", remedy="install it")

    runtime_service.run(wish(FIRST), places)
    monkeypatch.setattr(libbpf, "open_library", missing)
    assert plan_node({"node_runtime": RUNTIME}, places).drift == {"node_runtime": ["install libbpf"]}
    runtime_service.run(runtime.Desired(present=False), places)
    assert plan_node({"node_runtime": ABSENT}, places).drift == {}


def test_sockops_without_an_object_named_is_planned_for_the_installed_one(places: NodePaths) -> None:
    wishes = {"sockops": {"cgroups": ["system.slice"]}}
    with pytest.raises(Unsupported, match="found none installed; run the role node_runtime first"):
        plan_node(wishes, places)
    runtime_service.run(wish(FIRST), places)
    assert plan_node(wishes, places).after["sockops"]["object"] == OBJECT_DIGEST


# ---- refused ----


@pytest.mark.parametrize(
    ("wishes", "found"),
    [
        ({"sockpos": SOCKOPS, "node_runtime": RUNTIME}, "sockpos"),
        ({"node_runtime": {}, "sockops": SOCKOPS}, "none"),
        ({"node_runtime": {"state": "gone"}, "sockops": SOCKOPS}, "'gone'"),
        ({"node_runtime": RUNTIME, "sockops": {**SOCKOPS, "ports": [0]}}, "0"),
        ({"node_runtime": RUNTIME, "sockops": {**SOCKOPS, "port": [80]}}, "port"),
        ({"node_runtime": RUNTIME, "sockops": {"cgroups": ["../outside"]}}, "'../outside', which is outside"),
    ],
)
def test_a_wrong_wish_of_one_part_is_refused_before_anything_is_looked_at(
    places: NodePaths, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, dict[str, Json]], found: str
) -> None:
    def looked(*_: object) -> None:
        pytest.fail("the node was observed")

    monkeypatch.setattr(runtime, "observe", looked)
    monkeypatch.setattr(Sockops, "observe", looked)
    with pytest.raises(InvalidInput) as caught:
        plan_node(wishes, places)
    assert caught.value.found == found


def test_a_cgroup_that_is_not_there_is_named(places: NodePaths) -> None:
    wishes = {"sockops": {**SOCKOPS, "cgroups": ["system.slice", "gone.slice"]}}
    with pytest.raises(InvalidInput, match=r"wanted the cgroup gone\.slice; found no such cgroup"):
        plan_node(wishes, places)


# ---- the module ----


@pytest.fixture
def module_places(places: NodePaths, hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> NodePaths:
    """Have the module look at that node."""
    own = import_part("paths").NodePaths(**vars(places))
    monkeypatch.setattr(load_module(MODULE), "NodePaths", lambda: own)
    monkeypatch.setattr(import_part("system.systemd"), "running", lambda: False)
    monkeypatch.setattr(import_part("bpf.libbpf"), "open_library", lambda: None)
    of_module = import_part("system.cgroups")
    monkeypatch.setattr(of_module, "hierarchy", lambda: of_module.Hierarchy(hierarchy.mount))
    return places


def call(*, check_mode: bool = False, **wishes: object) -> dict[str, Any]:
    """Run the module."""
    return run_module(MODULE, check_mode=check_mode, **wishes)


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("installed", [False, True])
def test_the_module_tells_what_differs_and_changes_nothing(
    module_places: NodePaths, *, installed: bool, check_mode: bool
) -> None:
    if installed:
        runtime_service.run(wish(FIRST), module_places)
    root = Path(module_places.library).parent
    before = file_tree(root)
    result = call(check_mode=check_mode, node_runtime=RUNTIME, sockops=SOCKOPS)
    assert file_tree(root) == before
    assert result["changed"] is False
    assert result["roles"] == ["preflight", *(["node_runtime"] * (not installed)), "sockops"]
    assert result["drift"].keys() == set(result["roles"]) - {"preflight"}
    assert result["diff"]["before"] != result["diff"]["after"]


@pytest.mark.usefixtures("module_places")
def test_the_module_without_a_wish_finds_nothing_to_do() -> None:
    result = call()
    assert (result["roles"], result["drift"], result["changed"]) == ([], {}, False)
    assert result["diff"] == {"before": "{}\n", "after": "{}\n"}


def test_the_module_fails_with_what_was_wanted_found_and_what_to_do(module_places: NodePaths) -> None:
    result = call(node_runtime=RUNTIME, sockops={"cgroups": ["../outside"]})
    assert result["failed"] is True
    assert "outside" in result["found"]
    assert all(result[word] in result["msg"] for word in ("wanted", "found", "remedy"))
    assert file_tree(Path(module_places.library).parent) == {}


def test_the_module_takes_a_wish_for_each_part_and_names_roles_that_there_are() -> None:
    assert tuple(load_module(MODULE).ARGUMENTS) == node.PARTS
    assert all((ROOT / "roles" / role).is_dir() for role in (node.PREFLIGHT, *node.PARTS))
