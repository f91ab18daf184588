"""The plan of a declared program: after it nothing is left to do, and its way back restores all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.bpf.ownership import Bpffs
from meshaccel.bpf.program.desired import STAGED, Places
from meshaccel.bpf.program.plan import describe, describe_observed, make_plan
from meshaccel.errors import ApplyFailed, InvalidInput, Unsupported
from tests.unit.simulated_programs import (
    ABSENT,
    PATHS,
    SHARED,
    SHARED_PIN,
    SOCKET_KIND,
    SimulatedNode,
    Wish,
    below,
    nodes,
    wish,
    wishes,
)

if TYPE_CHECKING:
    from meshaccel.bpf.attach import MapInformation
    from meshaccel.model import Plan


# ---- properties ----


@given(nodes(), wishes() | st.just(ABSENT))
def test_after_a_run_nothing_is_left_to_do_and_the_diff_told_it(node: SimulatedNode, wished: Wish) -> None:
    promised = describe(wished.desired, node.observe(wished))

    node.converge(wished)

    assert node.plan(wished) == ()
    assert describe_observed(wished.desired, node.observe(wished)) == promised
    assert f"{PATHS.pins}/{SHARED_PIN}" in node.pins
    assert f"{PATHS.pins}/{STAGED}" not in node.pins


@given(nodes(), wishes() | st.just(ABSENT))
def test_a_failure_at_any_step_restores_what_was_observed(node: SimulatedNode, wished: Wish) -> None:
    before, bpffs = dict(node.pins), node.bpffs
    for failing in range(len(node.plan(wished))):
        with pytest.raises(ApplyFailed) as raised:
            node.converge(wished, failing)
        assert raised.value.undo_errors == ()
        assert (node.pins, node.bpffs) == (before, bpffs)


@given(nodes(), wishes())
def test_a_link_is_never_taken_off_a_cgroup_that_stays(node: SimulatedNode, wished: Wish) -> None:
    """Except where the new version attaches in another place."""
    links = f"{PATHS.pins}/count_links"
    before = {link.cgroup_id: link for link in below(node.pins, links).values()}

    node.converge(wished)

    after = {link.cgroup_id: link for link in below(node.pins, links).values()}
    for identifier in before.keys() & after.keys():
        same_place = before[identifier].attach_type == wished.version.attach_type
        assert (before[identifier].identifier == after[identifier].identifier) == same_place


@given(wishes())
def test_what_is_installed_on_an_empty_node_is_removed_without_trace(wished: Wish) -> None:
    if wished.desired.reuse_maps:
        wished = replace(wished, desired=replace(wished.desired, reuse_maps={}))
    node = SimulatedNode()
    node.converge(wished)
    node.converge(ABSENT)
    assert node.pins == {}
    assert not node.bpffs.mounted


# ---- single plans ----


def kinds(plan: Plan) -> list[str]:
    return [action.kind.removeprefix("bpf_program.") for action in plan]


def test_the_first_installation_mounts_loads_pins_and_attaches_in_this_order() -> None:
    plan = SimulatedNode().plan(wish(cgroups=(101, 102)))
    assert kinds(plan) == ["bpffs.mount", "load", "pin", "pin", "pin", "attach", "attach"]


def test_another_constant_swaps_the_program_and_keeps_its_maps() -> None:
    node = SimulatedNode()
    node.converge(wish(0, (101,)))
    assert kinds(node.plan(wish(1, (101,)))) == ["load", "pin", "update_link"]


def test_a_map_of_another_size_is_replaced_and_the_plan_says_what_that_costs() -> None:
    node = SimulatedNode()
    node.converge(wish(0))
    (replaced,) = [action.summary for action in node.plan(wish(2)) if "count_maps" in action.summary]
    assert f"{PATHS.pins}/count_maps/ports" in replaced
    assert "entries do not fit" in replaced


def test_a_size_that_is_wished_is_not_asked_of_a_map_that_goes_on() -> None:
    node = SimulatedNode()
    node.converge(wish(0, maximum_entries={"ports": 8}))
    load = node.plan(wish(1, maximum_entries={"ports": 8}))[0]
    assert load.arguments["maximum_entries"] == {}
    assert set(load.arguments["reuse"]) == {"ports", "counts"}


def test_absent_without_the_program_removes_its_leftovers() -> None:
    node = SimulatedNode()
    node.converge(wish(0, (101,)))
    del node.pins[f"{PATHS.pins}/count"]
    assert describe_observed(ABSENT.desired, node.observe(ABSENT)) == {"state": "incomplete"}
    node.converge(ABSENT)
    assert node.pins == {}


def test_a_read_only_bpffs_is_refused() -> None:
    with pytest.raises(Unsupported, match="read-only"):
        SimulatedNode(bpffs=Bpffs(mounted=True, read_only=True)).plan(wish())


def test_cgroups_are_refused_for_a_program_that_attaches_to_none() -> None:
    wished = wish(cgroups=(101,))
    observed = SimulatedNode().observe(wished)
    assert observed.candidate is not None
    facts = replace(observed.candidate.facts, kind=SOCKET_KIND)
    observed = replace(observed, candidate=replace(observed.candidate, facts=facts))
    with pytest.raises(InvalidInput, match="does not attach to cgroups"):
        make_plan(wished.desired, observed, Places.of(wished.desired, PATHS), PATHS)


@pytest.mark.parametrize(
    ("reuse", "shared", "found"),
    [
        ({"prots": SHARED_PIN}, SHARED, "ports (near)"),
        ({"ports": SHARED_PIN}, replace(SHARED, value_size=8), "key 2 and value 8 bytes"),
        ({"ports": SHARED_PIN}, replace(SHARED, kind=9), "type 9"),
    ],
)
def test_a_map_that_cannot_be_reused_is_refused(
    reuse: dict[str, str], shared: MapInformation, found: str
) -> None:
    node = SimulatedNode(pins={f"{PATHS.pins}/{SHARED_PIN}": shared}, bpffs=Bpffs(mounted=True))
    with pytest.raises(InvalidInput) as raised:
        node.plan(wish(reuse_maps=reuse))
    assert found in raised.value.found


def test_a_map_is_reused_whatever_its_size() -> None:
    node = SimulatedNode(pins={f"{PATHS.pins}/{SHARED_PIN}": SHARED}, bpffs=Bpffs(mounted=True))
    node.converge(wish(reuse_maps={"ports": SHARED_PIN}))
    assert SHARED in node.pins[f"{PATHS.pins}/count"].maps
