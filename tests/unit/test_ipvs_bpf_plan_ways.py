"""ipvs_bpf's plans in rarer states of a node, and what each of their ways back leads to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import ProgramMode
from meshaccel.accelerators.ipvs_bpf.plan import make_plan
from meshaccel.errors import ApplyFailed
from meshaccel.holds import Hold
from meshaccel.model import Mode
from tests.unit.ipvs_bpf_scenarios import LINKS, PATHS, PODS, TUNNEL, UPLINK, around, resolved, wish
from tests.unit.simulated_director import SimulatedDirector
from tests.unit.test_ipvs_bpf_plan import (
    ABSENT,
    AROUNDS,
    BPF,
    FIRST,
    FOUR_DEVICES,
    NATIVE,
    SECOND,
    converge,
    director,
    kinds,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.ipvs_bpf.desired import Desired
    from meshaccel.accelerators.ipvs_bpf.state import Observed
    from meshaccel.model import Action, Plan


def planned_for(desired: Desired, observed: Observed) -> Plan:
    return make_plan(desired, resolved(desired, observed.surroundings, observed.hold.mode), observed, PATHS)


def of_kind(actions: Plan, kind: str) -> Action:
    """Return the only action of a kind."""
    (found,) = [action for action in actions if action.kind == f"ipvs_bpf.{kind}"]
    return found


# ---- rarer states ----


@pytest.mark.parametrize("left", ["programs", "table"])
def test_what_is_left_without_pins_goes_before_anything_is_loaded(left: str) -> None:
    node = director(BPF)
    node.pins = None
    if left == "programs":
        node.table = None
    else:
        node.hooks.clear()
    first = [*FOUR_DEVICES, "load"] if left == "programs" else ["nft_table", "load"]
    actions = plan(node, BPF)
    assert kinds(actions)[: len(first)] == first
    for action in actions[: len(first) - 1]:
        if action.kind == "ipvs_bpf.place":
            (undo,) = action.undo
            assert (undo.arguments["ingress"], undo.arguments["egress"]) == (None, None), (
                "their pins are gone"
            )


def test_another_layout_is_unloaded_and_loaded_without_a_wait_for_what_cannot_be_read() -> None:
    observed = director(BPF).observe()
    assert observed.loaded is not None
    other = replace(observed, loaded=replace(observed.loaded, same_layout=False))
    planned = kinds(planned_for(BPF, other))
    assert planned[:7] == [*FOUR_DEVICES, "nft_table", "unload", "load"]


def test_a_bridge_s_port_that_a_pattern_leaves_out_is_left_without_a_drain() -> None:
    assert kinds(plan(director(BPF), wish(devices=["eth0", "cni0", "wg0"]))) == ["place", "file.write"]


def test_a_device_that_became_a_part_of_another_is_left_without_a_drain() -> None:
    node = director(BPF)
    bonded = replace(UPLINK, master_index=9, master_kind="bond")
    node.surroundings = around(tuple(bonded if each is UPLINK else each for each in LINKS))
    assert kinds(plan(node, BPF)) == ["write_services", "write_devices", "place"]


def test_while_off_a_device_is_left_without_touching_the_others() -> None:
    node = director(BPF)
    node.hold = Hold(Mode.OFF)
    converge(node, BPF)
    assert kinds(plan(node, wish(devices=["eth0", "cni0", "veth*"]))).count("place") == 1


def test_an_operator_s_off_comes_before_all_else_that_is_to_be_done() -> None:
    node = director(BPF)
    node.hold = Hold(Mode.OFF)
    node.surroundings = AROUNDS[2]
    assert kinds(plan(node, BPF)) == ["set_mode", "write_services", "write_devices"]


@pytest.mark.parametrize(("before", "planned"), [(None, []), (BPF, ["nft_table"])])
def test_without_conntrack_there_is_no_table(before: Desired | None, planned: list[str]) -> None:
    node = director(before)
    node.surroundings = around(conntrack=False)
    assert [kind for kind in kinds(plan(node, BPF)) if kind == "nft_table"] == planned
    converge(node, BPF)
    assert node.table is None


def test_a_clsact_that_others_use_stays() -> None:
    observed = director(BPF).observe()
    states = tuple(
        replace(state, foreign=("ingress priority 5 u32",)) if state.link is PODS else state
        for state in observed.devices
    )
    removed = {
        action.arguments["device"]
        for action in planned_for(ABSENT, replace(observed, devices=states))
        if action.kind == "ipvs_bpf.remove_clsact"
    }
    assert removed == {"eth0", "veth1", "wg0"}


# ---- how long is waited ----


def test_observation_and_drain_take_as_long_as_is_wished() -> None:
    desired = wish(observe_seconds=7, drain_seconds=77)
    assert of_kind(plan(director(), desired), "observe").arguments == {"seconds": 7}
    leaving = plan(director(desired), wish(mode="native", observe_seconds=7, drain_seconds=77))
    assert of_kind(leaving, "drain").arguments == {"seconds": 77}
    (resume,) = leaving[0].undo
    assert (resume.kind, resume.arguments) == ("ipvs_bpf.resume", {"seconds": 7})


def test_a_drain_from_observation_is_not_turned_back_into_taking_flows() -> None:
    node = director(BPF)
    assert node.pins is not None
    node.pins.mode = ProgramMode.OBSERVE
    assert plan(node, NATIVE)[0].undo == ()


# ---- ways back ----


def failures(before: Desired, after: Desired, changes: dict[str, object]) -> Iterator[SimulatedDirector]:
    """Yield a node after a failure at each step of a change, as long as there is a way back."""
    steps = 0
    while True:
        node = director(before)
        for name, value in changes.items():
            setattr(node, name, value)
        node.fails_after = steps
        try:
            converge(node, after)
        except ApplyFailed as error:
            assert node.violations == []
            if error.undo_errors == ():
                yield node
        else:
            assert steps > 5
            return
        steps += 1


@pytest.mark.parametrize("after", [NATIVE, ABSENT], ids=["native", "absent"])
def test_a_failure_on_the_way_off_leads_back_to_on(after: Desired) -> None:
    before = director(BPF)
    assert before.pins is not None
    for node in failures(BPF, after, {}):
        assert node.pins is not None
        assert node.pins.mode is ProgramMode.ON
        assert node.pins.services == before.pins.services
        assert (node.hooks, node.table, node.files) == (before.hooks, before.table, before.files)


def test_a_failure_on_the_way_to_bpf_breaks_none_of_the_sessions_that_had_begun() -> None:
    for node in failures(NATIVE, BPF, {}):
        assert node.pins is None


def test_a_failure_while_a_release_is_swapped_leads_back_to_the_one_before() -> None:
    before = director(BPF)
    for node in failures(BPF, BPF, {"object_file": SECOND}):
        assert node.pins is not None
        assert (node.pins.digest, node.pins.versions) == (FIRST.digest, {FIRST.digest})
        assert node.hooks == before.hooks


def test_of_what_cannot_be_loaded_again_nothing_is_hung_up_again() -> None:
    told = set()
    for steps in range(60):
        node = director(BPF)
        node.fails_after = steps
        try:
            converge(node, wish(maximum_sessions=7))
        except ApplyFailed as error:
            if error.undo_errors:
                told.add(error.undo_errors)
                assert all(hook == (None, None) for hook in node.hooks.values())
    (errors,) = told
    assert len(errors) == 1
    assert "cannot be loaded again" in errors[0]


def test_what_a_live_node_got_stays_on_the_way_back_since_sessions_may_need_it() -> None:
    node = director(BPF, AROUNDS[2])
    node.surroundings = AROUNDS[0]
    actions = plan(node, BPF)
    (undo,) = of_kind(actions, "write_devices").undo
    assert (undo.arguments["remove"], undo.arguments["write"]) == ([], {})
    node.table = None
    assert of_kind(plan(node, BPF), "nft_table").undo == ()
    fresh = plan(SimulatedDirector(around(), object_file=FIRST), BPF)
    assert of_kind(fresh, "nft_table").undo != ()
    (undo,) = of_kind(fresh, "write_devices").undo
    assert undo.arguments["remove"] == [UPLINK.index, PODS.index, TUNNEL.index]
