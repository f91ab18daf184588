"""From a wish for relays to actions: by property on a simulated node, and within the accelerator's plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.accelerators.sockops.description import describe, describe_observed
from meshaccel.accelerators.sockops.desired import Desired
from meshaccel.accelerators.sockops.observe import Observed
from meshaccel.accelerators.sockops.plan import make_plan
from meshaccel.accelerators.sockops.relays import observe as relays_observe
from meshaccel.accelerators.sockops.relays.desired import Relay, parse_address
from meshaccel.accelerators.sockops.relays.plan import Wish, make_changes
from meshaccel.bpf.object_file import ObjectFile
from meshaccel.errors import ApplyFailed, Unsupported
from meshaccel.model import Mode, Plan
from tests.unit.simulated_relays import Pins, SimulatedRelays
from tests.unit.sockops_scenarios import (
    ABSENT,
    CGROUPS,
    NEW,
    OLD,
    PATHS,
    Scenario,
    node,
    pins,
    policy,
    present,
)
from tests.unit.sockops_scenarios import wish as cgroup_wish

RELAYS = tuple(
    Relay(parse_address(f"127.0.0.1:{port}"), parse_address(f"[::1]:{port + 1}"))
    for port in (1000, 2000, 3000)
)
PLACES = {identifier: path for path, identifier in CGROUPS.items()}
DIGESTS = (OLD, NEW)
OBJECTS = tuple(ObjectFile("/lib/sockops_relay.bpf.o", digest) for digest in DIGESTS)

some_relays = st.lists(st.sampled_from(RELAYS), unique=True).map(tuple)
some_cgroups = st.sets(st.sampled_from(sorted(PLACES))).map(lambda found: {key: PLACES[key] for key in found})
wishes = st.builds(lambda relays, cgroups: Wish(relays, cgroups, PLACES, 10), some_relays, some_cgroups)
pinned = st.builds(
    Pins,
    digest=st.sampled_from(DIGESTS),
    all_maps=st.sampled_from([True, True, True, False]),
    versions=st.sets(st.sampled_from(DIGESTS)),
    links=st.dictionaries(st.sampled_from(sorted(PLACES)), st.sampled_from(DIGESTS)),
    relays=st.sets(st.sampled_from(RELAYS)),
)
simulated = st.builds(SimulatedRelays, object_file=st.sampled_from(OBJECTS), pins=st.none() | pinned)
many = settings(max_examples=300)


def plan(wish: Wish, relays: SimulatedRelays) -> Plan:
    changes = make_changes(wish, relays.observe())
    return (*changes.now, *changes.last)


@many
@given(wishes, simulated)
def test_the_plan_of_an_applied_state_is_empty(wish: Wish, relays: SimulatedRelays) -> None:
    engine.apply(plan(wish, relays), relays.handlers())
    assert plan(wish, relays) == ()


@many
@given(wishes, simulated)
def test_what_is_wished_is_there_afterwards_and_nothing_else(wish: Wish, relays: SimulatedRelays) -> None:
    engine.apply(plan(wish, relays), relays.handlers())
    if not wish.relays:
        assert relays.pins is None
        return
    assert relays.object_file is not None
    installed = relays.object_file.digest
    assert relays.pins == Pins(
        digest=installed,
        versions={installed},
        links=dict.fromkeys(wish.cgroups, installed),
        relays=set(wish.relays),
    )


@many
@given(wishes, simulated, st.integers(0, 20))
def test_a_failure_anywhere_is_undone_or_the_error_says_what_is_not(
    wish: Wish, relays: SimulatedRelays, fails_after: int
) -> None:
    before = relays.observe().loaded
    changes = make_changes(wish, relays.observe())
    relays.fails_after = fails_after
    undo_errors = failed_undo(changes.now, relays)
    if undo_errors is None:
        return
    after = relays.observe().loaded
    if before is None:
        assert after is None
    elif not undo_errors:
        assert after is not None
        assert (after.usable, after.digest, after.relays) == (before.usable, before.digest, before.relays)
        # What was broken may be whole now; nothing that was whole is broken.
        assert before.cgroup_ids <= after.cgroup_ids
    else:
        assert relays.object_file is not None
        assert not before.usable or before.digest != relays.object_file.digest


def failed_undo(plan: Plan, relays: SimulatedRelays) -> tuple[str, ...] | None:
    """Apply a plan; return the errors of the way back, or None when nothing failed."""
    try:
        engine.apply(plan, relays.handlers())
    except ApplyFailed as error:
        return error.undo_errors
    return None


@given(wishes)
def test_without_an_object_the_error_says_which(wish: Wish) -> None:
    relays = SimulatedRelays(object_file=None)
    if not wish.relays:
        assert plan(wish, relays) == ()
        return
    with pytest.raises(Unsupported, match="the BPF object of relays"):
        plan(wish, relays)


# ---- within the accelerator's plan ----


def observed(scenario: Scenario, loaded: relays_observe.Loaded | None) -> Observed:
    """Return what a scenario shows, with this much of relays loaded."""
    found = relays_observe.Observed(loaded, OBJECTS[0])
    return replace(scenario.observe(), relays=found)


def kinds(scenario: Scenario, loaded: relays_observe.Loaded | None = None) -> list[str]:
    """Return the kinds of the actions, without their prefix."""
    actions = make_plan(scenario.desired, observed(scenario, loaded), PATHS)
    return [action.kind.removeprefix("sockops.") for action in actions]


RELAYED = replace(present(cgroup_wish("a")), relays=RELAYS[:1])
RUNNING = relays_observe.Loaded(
    usable=True, digest=OLD, relays=RELAYS[:1], cgroup_ids=frozenset({CGROUPS["a"]})
)


def running(desired: Desired = RELAYED) -> Scenario:
    """A node with the accelerator on in cgroup a."""
    found = node(pins({1: policy(CGROUPS["a"])}))
    return Scenario(found, desired)


def test_relays_come_after_the_cgroups_and_before_the_switch() -> None:
    assert kinds(Scenario(node(), RELAYED)) == [
        "load",
        "write_policy",
        "attach",
        "relays_load",
        "relays_attach",
        "relays_write",
        "set_mode",
        "file.write",
    ]


def test_nothing_is_done_for_relays_that_are_there() -> None:
    assert kinds(running(), RUNNING) == ["file.write"]


def test_a_new_table_loads_relays_anew() -> None:
    larger = replace(RELAYED, maximum_connections=11)
    names = kinds(running(larger), RUNNING)
    assert names.index("relays_unload") < names.index("unload")
    assert names.index("load") < names.index("relays_load") < names.index("relays_write")


def test_absent_takes_relays_off_first() -> None:
    names = kinds(running(ABSENT), RUNNING)
    assert names[0] == "relays_unload"
    assert "unload" in names[1:]


def test_off_is_told_before_anything_of_relays() -> None:
    names = kinds(running(replace(RELAYED, mode=Mode.OFF)), replace(RUNNING, relays=()))
    assert names.index("set_mode") < names.index("relays_write")


def test_relays_are_described_in_the_words_of_the_role() -> None:
    scenario = running()
    expected = [{"from": "127.0.0.1:1000", "to": "[::1]:1001"}]
    assert describe(scenario.desired, observed(scenario, RUNNING))["relays"] == expected
    assert describe_observed(observed(scenario, RUNNING))["relays"] == expected
    assert describe_observed(observed(scenario, None))["relays"] == []
