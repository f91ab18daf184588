"""What ipvs_bpf plans: by table, and for any wish on any node that an earlier run left, done or killed."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf.layout import ProgramMode
from meshaccel.accelerators.ipvs_bpf.plan import make_plan
from meshaccel.accelerators.ipvs_bpf.state import Surroundings
from meshaccel.bpf.object_file import ObjectFile
from meshaccel.bpf.ownership import Bpffs
from meshaccel.errors import ApplyFailed, Unsupported
from meshaccel.holds import Hold
from meshaccel.model import Mode
from tests.unit.ipvs_bpf_scenarios import (
    LINKS,
    PATHS,
    POD,
    PODS,
    TUNNEL,
    UPLINK,
    WEB,
    around,
    link,
    resolved,
    wish,
)
from tests.unit.simulated_accelerator import Killed
from tests.unit.simulated_director import SimulatedDirector

if TYPE_CHECKING:
    from meshaccel.accelerators.ipvs_bpf.desired import Desired
    from meshaccel.accelerators.ipvs_bpf.state import Observed
    from meshaccel.model import Json, Plan

FIRST, SECOND = ObjectFile("ipvs_bpf.bpf.o", "1" * 16), ObjectFile("ipvs_bpf.bpf.o", "2" * 16)
NATIVE, ABSENT = wish(mode="native"), wish(state="absent")
BPF = wish()
WISHES = (
    NATIVE,
    ABSENT,
    BPF,
    wish(mark_bits=[0x10000, 0x20000]),
    wish(maximum_sessions=100),
    wish(devices=["eth0", "cni0"]),
    wish(follow="none", services=[{"address": "10.96.0.1", "port": 80, "masquerade": "always"}]),
    wish(masquerade="always", local_networks=["10.244.0.0/16"], fast_path=True),
    wish(source_addresses={"*": {"ports": "2000-3000"}}),
)
#: Surroundings that a node may come to have: a new pod, no tunnel, a port that leaves its bridge.
AROUNDS = (
    around(),
    around((*LINKS, link(9, "veth2", kind="veth"))),
    around(tuple(each for each in LINKS if each is not TUNNEL)),
    around(tuple(replace(each, master_index=0, master_kind="") if each is POD else each for each in LINKS)),
    around(services=(WEB,)),
)


def plan(node: SimulatedDirector, desired: Desired) -> Plan:
    """Return the plan for a wish on a node."""
    observed = node.observe()
    return make_plan(desired, resolved(desired, node.surroundings, observed.hold.mode), observed, PATHS)


def converge(node: SimulatedDirector, desired: Desired) -> engine.Outcome[Observed]:
    """Carry a wish out."""

    def planned(seen: Observed) -> Plan:
        return make_plan(desired, resolved(desired, node.surroundings, seen.hold.mode), seen, PATHS)

    return engine.converge(node.observe, planned, node.handlers())


def director(desired: Desired | None = None, surroundings: Surroundings = AROUNDS[0]) -> SimulatedDirector:
    """Return a node, converged to a wish if one is given."""
    node = SimulatedDirector(surroundings, object_file=FIRST)
    if desired is not None:
        converge(node, desired)
    assert node.violations == []
    return node


def kinds(actions: Plan) -> list[str]:
    """Return the kinds of action, the accelerator's own without its name."""
    return [action.kind.removeprefix("ipvs_bpf.") for action in actions]


# ---- by table ----

ON = ["forget_flows", "observe", "reserve", "set_mode"]
OFF = ["set_mode", "drain", "set_mode"]
FOUR_DEVICES = ["place"] * 4


@pytest.mark.parametrize(
    ("before", "after", "planned"),
    [
        (None, NATIVE, ["file.write"]),
        (None, ABSENT, []),
        (
            None,
            BPF,
            [
                *["bpffs.mount", "load", "write_settings", "write_devices", *FOUR_DEVICES, "nft_table"],
                *["write_services", *ON, "file.write"],
            ],
        ),
        (BPF, BPF, []),
        (BPF, NATIVE, [*OFF, *FOUR_DEVICES, "nft_table", "file.write", "unload", "bpffs.unmount"]),
        (
            BPF,
            ABSENT,
            [
                *OFF,
                *FOUR_DEVICES,
                "nft_table",
                "file.remove",
                *["remove_clsact"] * 4,
                "unload",
                "bpffs.unmount",
            ],
        ),
        (BPF, wish(fast_path=True), ["write_settings", "file.write"]),
        (BPF, wish(masquerade="never"), ["write_services", "file.write"]),
        (BPF, wish(local_networks=["10.0.0.0/8"]), ["write_networks", "file.write"]),
        (
            BPF,
            wish(maximum_sessions=7),
            [
                *[*OFF, *FOUR_DEVICES, "nft_table", "unload", "load", "write_settings", "write_devices"],
                *[*FOUR_DEVICES, "nft_table", "write_services", *ON, "file.write"],
            ],
        ),
        (NATIVE, ABSENT, ["file.remove"]),
    ],
    ids=[
        *["nothing-native", "nothing-absent", "nothing-bpf", "as-wished", "to-native", "to-absent"],
        *["fast-path", "masquerade", "networks", "another-size", "native-absent"],
    ],
)
def test_what_is_planned(before: Desired | None, after: Desired, planned: list[str]) -> None:
    assert kinds(plan(director(before), after)) == planned


def test_a_new_release_is_swapped_in_without_a_switch() -> None:
    node = director(BPF)
    node.object_file = SECOND
    assert kinds(plan(node, BPF)) == ["load_programs", "run_version", *FOUR_DEVICES, "discard_programs"]
    converge(node, BPF)
    assert node.violations == []
    assert node.pins is not None
    assert node.pins.versions == {SECOND.digest}
    assert node.pins.sessions


def test_other_marks_are_changed_while_nothing_carries_them() -> None:
    planned = kinds(plan(director(BPF), wish(mark_bits=[16, 32])))
    assert planned.index("drain") < planned.index("write_settings") < planned.index("observe")


def test_a_device_that_a_pattern_leaves_out_is_left_after_a_drain() -> None:
    planned = kinds(plan(director(BPF), wish(devices=["eth0", "cni0", "veth*"])))
    assert planned.index("drain") < planned.index("place")
    assert planned[-2:] == ["set_mode", "file.write"]


def test_a_new_device_and_its_services_need_no_switch() -> None:
    node = director(BPF, AROUNDS[2])
    node.surroundings = AROUNDS[0]
    assert kinds(plan(node, BPF)) == ["write_devices", "place", "write_services"]


def test_services_leave_before_the_device_that_they_need() -> None:
    node = director(BPF)
    node.surroundings = AROUNDS[2]
    assert kinds(plan(node, BPF)) == ["write_services", "write_devices"]


@pytest.mark.parametrize("held", [Mode.OFF, Mode.DRAIN])
def test_what_an_operator_holds_wins_and_is_the_first_thing_the_kernel_is_told(held: Mode) -> None:
    node = director(BPF)
    node.hold = Hold(held)
    assert [action.arguments for action in plan(node, BPF)] == [{"mode": held.value}]
    converge(node, BPF)
    assert plan(node, BPF) == ()
    node.hold = Hold()
    expected = ON if held is Mode.OFF else ON[1:]
    assert kinds(plan(node, BPF)) == expected


@pytest.mark.parametrize("mode", [ProgramMode.DRAIN, ProgramMode.OBSERVE])
def test_a_switch_that_was_interrupted_goes_on_from_where_it_was(mode: ProgramMode) -> None:
    node = director(BPF)
    assert node.pins is not None
    node.pins.mode = mode
    assert kinds(plan(node, BPF)) == ["observe", "reserve", "set_mode"]
    drained = OFF if mode is ProgramMode.OBSERVE else OFF[1:]
    assert kinds(plan(node, NATIVE))[: len(drained)] == drained


def test_a_table_of_nft_that_somebody_removed_comes_back() -> None:
    node = director(BPF)
    node.table = None
    assert kinds(plan(node, BPF)) == ["nft_table"]


def test_programs_whose_pins_were_removed_are_replaced() -> None:
    node = director(BPF)
    node.pins = None
    planned = kinds(plan(node, BPF))
    assert planned[:5] == [*FOUR_DEVICES, "nft_table"]
    assert planned[5] == "load"
    converge(node, BPF)
    assert plan(node, BPF) == ()


def test_without_the_object_nothing_is_planned() -> None:
    with pytest.raises(Unsupported, match="none installed"):
        plan(SimulatedDirector(AROUNDS[0]), BPF)


def test_a_device_that_goes_meanwhile_is_the_next_run_s() -> None:
    node = director(BPF)
    observed = node.observe()
    left = tuple(
        replace(state, ingress=None, egress=None, gone=True) if state.link is UPLINK else state
        for state in observed.devices
    )
    observed = replace(observed, devices=left)
    assert make_plan(BPF, resolved(BPF, node.surroundings), observed, PATHS) == ()


def test_somebody_else_s_bpffs_and_clsact_stay() -> None:
    node = SimulatedDirector(AROUNDS[0], object_file=FIRST, bpffs=Bpffs(mounted=True))
    node.hooks[PODS.index] = (None, None)
    assert kinds(plan(node, ABSENT)) == []
    converge(node, BPF)
    converge(node, ABSENT)
    assert node.bpffs.mounted


# ---- by property ----

COUNT = st.integers(0, 60)
CHANGES = st.fixed_dictionaries(
    {
        "wishes": st.tuples(*[st.sampled_from(WISHES)] * 3),
        "arounds": st.tuples(*[st.sampled_from(AROUNDS)] * 3),
        "objects": st.tuples(*[st.sampled_from([FIRST, SECOND])] * 3),
        "held": st.sampled_from([None, Mode.OFF, Mode.DRAIN]),
    }
)


def prepared(changes: dict[str, Json]) -> SimulatedDirector:
    """Return a node converged to the first wish, with what is around and installed now that of the second."""
    node = director(changes["wishes"][0], changes["arounds"][0])
    advance(node, changes, 1)
    return node


def advance(node: SimulatedDirector, changes: dict[str, Json], step: int) -> None:
    """Change what is around a node; of devices that are gone nothing is left."""
    node.surroundings, node.object_file = changes["arounds"][step], changes["objects"][step]
    present = {each.index for each in node.surroundings.links}
    node.hooks = {index: hook for index, hook in node.hooks.items() if index in present}
    if node.pins is not None:
        node.pins.sessions &= present


@given(CHANGES)
def test_any_wish_is_carried_out_and_then_there_is_nothing_to_do(changes: dict[str, Json]) -> None:
    node = prepared(changes)
    node.hold = Hold(changes["held"])
    converge(node, changes["wishes"][1])
    assert plan(node, changes["wishes"][1]) == ()
    assert node.violations == []


@settings(max_examples=300)
@given(CHANGES, COUNT)
def test_a_run_that_is_killed_anywhere_is_gone_on_from_or_turned_back(
    changes: dict[str, Json], steps: int
) -> None:
    node = prepared(changes)
    node.killed_after = steps
    with contextlib.suppress(Killed):
        converge(node, changes["wishes"][1])
    node.killed_after = None
    advance(node, changes, 2)
    converge(node, changes["wishes"][2])
    assert plan(node, changes["wishes"][2]) == ()
    assert node.violations == []


@settings(max_examples=300)
@given(CHANGES, COUNT)
def test_a_failure_anywhere_breaks_nothing_and_the_next_run_does_it(
    changes: dict[str, Json], steps: int
) -> None:
    node = prepared(changes)
    node.fails_after = steps
    with contextlib.suppress(ApplyFailed):
        converge(node, changes["wishes"][1])
    node.fails_after = None
    assert node.violations == []
    converge(node, changes["wishes"][1])
    assert plan(node, changes["wishes"][1]) == ()
    assert node.violations == []


@pytest.mark.parametrize("surroundings", AROUNDS)
def test_a_failure_on_the_way_to_bpf_leaves_a_native_node_native(surroundings: Surroundings) -> None:
    steps = 0
    while True:
        node = director(NATIVE, surroundings)
        before = node.copy()
        node.fails_after = steps
        try:
            converge(node, BPF)
        except ApplyFailed as error:
            undo_errors = error.undo_errors
        else:
            assert steps > 20
            return
        assert undo_errors == ()
        assert (node.pins, node.table, node.files) == (before.pins, before.table, before.files)
        assert all(hook == (None, None) for hook in node.hooks.values()), "clsact alone may stay"
        steps += 1


@given(CHANGES, COUNT)
def test_absent_leaves_nothing_behind_whatever_was_there(changes: dict[str, Json], steps: int) -> None:
    node = prepared(changes)
    node.killed_after = steps
    with contextlib.suppress(Killed):
        converge(node, changes["wishes"][1])
    node.killed_after = None
    node.hold = Hold(changes["held"])
    unloaded_in_part = node.pins is None and not node.files
    converge(node, ABSENT)
    assert (node.pins, node.table, node.files, node.hold) == (None, None, {}, Hold())
    assert not node.bpffs.mounted
    assert unloaded_in_part or not node.hooks
    assert node.violations == []
