"""What holds for the plan of any wish on any node, carried out on a simulated node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.accelerators.sockops.resolution import resolve
from meshaccel.errors import ApplyFailed
from meshaccel.holds import Hold
from meshaccel.model import Mode
from tests.unit.sockops_scenarios import (
    Scenario,
    absents,
    complete_pins,
    held_modes,
    nodes,
    presents,
    scenarios,
    small_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

many = settings(max_examples=150)


@many
@given(scenarios())
def test_the_plan_of_an_applied_state_is_empty(scenario: Scenario) -> None:
    engine.apply(scenario.plan(), scenario.node.handlers())
    assert scenario.plan() == ()


@many
@given(scenarios(found=nodes(complete_pins())) | scenarios() | small_changes())
def test_no_action_breaks_a_rule_of_the_node(scenario: Scenario) -> None:
    """Policies are nobody else's and never 0; sockets are released before programs go; see SimulatedNode."""
    scenario.converge()
    assert scenario.node.violations == []


@many
@given(scenarios(presents))
def test_what_is_denied_is_on_tcp_afterwards(scenario: Scenario) -> None:
    scenario.converge()
    observed, pins = scenario.observe(), scenario.node.pins
    assert pins is not None
    assert pins.denied_networks == observed.denied.networks
    modes = {policy.cgroup_id: policy.mode for policy in pins.policies.values()}
    assert all(modes[process.cgroup_id] is Mode.OFF for process in observed.denied.processes)


@many
@given(scenarios(absents))
def test_absent_leaves_nothing_of_ours(scenario: Scenario) -> None:
    bpffs = scenario.node.bpffs
    scenario.converge()
    node = scenario.node
    assert (node.pins, node.files, node.hold.empty) == (None, {}, True)
    assert node.bpffs.mounted == (bpffs.mounted and not (bpffs.ours and not bpffs.shared))


@many
@given(
    scenarios(
        st.builds(replace, presents, mode=held_modes),
        nodes(st.builds(replace, complete_pins(), mode=st.just(Mode.ON))),
    )
)
def test_switching_off_is_the_first_thing_the_kernel_is_told(scenario: Scenario) -> None:
    first = next(action for action in scenario.plan() if action.kind.startswith("sockops."))
    assert (first.kind, first.arguments["mode"] != "on") == ("sockops.set_mode", True)


@many
@given(
    scenarios(
        st.builds(replace, presents, mode=st.just(Mode.ON)),
        nodes(st.none() | st.builds(replace, complete_pins(), mode=held_modes), st.just(Hold())),
    )
)
def test_switching_on_comes_after_all_but_the_file_and_the_old_version(scenario: Scenario) -> None:
    plan = scenario.plan()
    switch = [(action.kind, action.arguments.get("mode")) for action in plan].index(
        ("sockops.set_mode", "on")
    )
    after = {action.kind for action in plan[switch + 1 :]}
    assert after <= {"file.write", "sockops.discard_programs", "sockops.adopt"}


@many
@given(small_changes())
def test_a_cgroup_that_is_as_wished_is_not_touched(scenario: Scenario) -> None:
    observed = scenario.observe()
    loaded = observed.loaded
    assert loaded is not None
    wished = {
        (entry.cgroup_id, entry.mode, entry.ports, entry.receive_memory_limit)
        for entry in resolve(scenario.desired, observed).policies
    }
    as_wished = {
        entry.policy
        for entry in loaded.attachments
        if (entry.cgroup_id, entry.mode, entry.ports, entry.receive_memory_limit) in wished and entry.attached
    }
    assert not as_wished & {action.arguments.get("policy") for action in scenario.plan()}


@many
@given(scenarios())
def test_a_failure_anywhere_leaves_the_node_as_it_was_or_the_error_says_what_is_not(
    scenario: Scenario,
) -> None:
    before, versions = everything(scenario), pinned_versions(scenario)
    for error, failed in failures(scenario):
        assert error.undo_errors or everything(failed) == before
        assert error.undo_errors or pinned_versions(failed) <= versions


@many
@given(scenarios())
def test_a_failure_before_anything_is_lost_for_good_can_always_be_undone(scenario: Scenario) -> None:
    last_resort = lost_for_good(scenario)
    for error, _ in failures(scenario):
        if error.wanted in last_resort:
            break
        assert error.undo_errors == ()


def lost_for_good(scenario: Scenario) -> set[str]:
    """Return the summaries of actions that tidy, or throw away a version that is not installed any more."""
    observed, plan = scenario.observe(), scenario.plan()
    loaded, installed = observed.loaded, observed.object_file
    assert installed is not None
    lost = {action.summary for action in plan if action.tidies}
    if loaded is None or (loaded.usable and loaded.digest == installed.digest):
        return lost
    return lost | {action.summary for action in plan if action.kind == "sockops.unload"}


@many
@given(scenarios())
def test_a_failure_while_tidying_leaves_nothing_else_to_do(scenario: Scenario) -> None:
    tidying = {action.summary for action in scenario.plan() if action.tidies}
    for error, failed in failures(scenario):
        if error.wanted in tidying:
            # A run that does anything adopts as well, again and again if it has to.
            left = {action.summary for action in failed.plan() if action.kind != "sockops.adopt"}
            assert left <= tidying


def failures(scenario: Scenario) -> Iterator[tuple[ApplyFailed, Scenario]]:
    """Carry out the plan again and again; each time it fails one step of work later than before."""
    plan = scenario.plan()
    steps = 0
    while True:
        attempt = replace(scenario, node=scenario.node.copy())
        attempt.node.fails_after = steps
        try:
            engine.apply(plan, attempt.node.handlers())
        except ApplyFailed as error:
            yield error, attempt
        else:
            return
        steps += 1


def everything(scenario: Scenario) -> tuple[object, ...]:
    """What must be as before: all that can be observed, and the files.

    What need not come back: what the kernel still had of cgroups that are gone, versions that a killed run
    left behind, and pins of which some were removed by hand (without the rest traffic goes by TCP as well).
    """
    observed, files = scenario.observe(), scenario.node.files
    loaded = observed.loaded
    if loaded is None or not loaded.complete:
        return replace(observed, loaded=None), files
    alive = tuple(entry for entry in loaded.attachments if entry.path is not None)
    return replace(observed, loaded=replace(loaded, attachments=alive, stale_versions=())), files


def pinned_versions(scenario: Scenario) -> set[str]:
    return scenario.node.pins.versions if scenario.node.pins else set()
