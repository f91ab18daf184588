"""The two descriptions whose difference an operator sees, in check mode and after a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from meshaccel.accelerators.sockops.description import describe, describe_observed
from meshaccel.holds import Hold
from meshaccel.model import Mode
from meshaccel.ports import PortRange
from tests.unit.sockops_scenarios import (
    ABSENT,
    CGROUPS,
    CONNECTIONS,
    GONE,
    LIMIT,
    NEW,
    OLD,
    Scenario,
    node,
    pins,
    policy,
    present,
    scenarios,
    wish,
)

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.desired import Desired
    from meshaccel.accelerators.sockops.observe import Observed
    from meshaccel.model import Json
    from tests.unit.simulated_sockops import SimulatedNode

WEB = (PortRange(80, 80), PortRange(8000, 8100))


def words(mode: str = "on", ports: Json = "all", limit: int = LIMIT) -> dict[str, Json]:
    return {"mode": mode, "ports": ports, "receive_memory_limit": limit}


def observed(found: SimulatedNode, desired: Desired = ABSENT) -> Observed:
    return Scenario(found, desired).observe()


@settings(max_examples=120)
@given(scenarios())
def test_what_check_mode_promises_is_what_the_run_leads_to(scenario: Scenario) -> None:
    promised = describe(scenario.desired, scenario.observe())
    scenario.converge()
    assert describe_observed(scenario.observe()) == promised


def test_a_wish_is_described_in_the_words_of_the_role() -> None:
    desired = present(wish("a", mode=Mode.DRAIN, ports=WEB), wish("b"), mode=Mode.OFF)
    assert describe(desired, observed(node(installed=NEW), desired)) == {
        "state": "present",
        "mode": "off",
        "object": NEW,
        "maximum_connections": CONNECTIONS,
        "relays": [],
        "denied_networks": [],
        "cgroups": {"a": words("drain", ["80", "8000-8100"]), "b": words()},
    }


def test_absent_is_described_by_that_word_alone() -> None:
    assert describe(ABSENT, observed(node(pins({1: policy(CGROUPS["a"])})))) == {"state": "absent"}


def test_a_hold_shows_where_it_beats_the_wish() -> None:
    desired = present(wish("a"), wish("b"))
    held = node(hold=Hold(Mode.DRAIN, {"b": Mode.OFF}))
    described = describe(desired, observed(held, desired))
    assert (described["mode"], described["cgroups"]) == ("drain", {"a": words(), "b": words("off")})


def test_a_cgroup_that_is_left_out_is_not_promised() -> None:
    desired = present(wish("a"), wish("not-there"))
    assert list(describe(desired, observed(node(), desired))["cgroups"]) == ["a"]


def test_nothing_loaded_is_described_as_absent() -> None:
    assert describe_observed(observed(node())) == {"state": "absent"}


def test_missing_pins_are_described_as_incomplete() -> None:
    damaged = replace(pins(), all_maps=False)
    assert describe_observed(observed(node(damaged))) == {"state": "incomplete"}


def test_what_is_loaded_is_described_in_the_words_of_a_wish() -> None:
    loaded = pins({3: policy(CGROUPS["a"], Mode.DRAIN, WEB, 2 * LIMIT)}, mode=Mode.OFF)
    assert describe_observed(observed(node(loaded))) == {
        "state": "present",
        "mode": "off",
        "object": OLD,
        "maximum_connections": CONNECTIONS,
        "relays": [],
        "denied_networks": [],
        "cgroups": {"a": words("drain", ["80", "8000-8100"], 2 * LIMIT)},
    }


def test_a_cgroup_that_is_gone_is_described_by_its_id() -> None:
    described = describe_observed(observed(node(pins({1: policy(GONE)}))))
    assert list(described["cgroups"]) == [f"gone (id {GONE})"]


def test_a_cgroup_without_its_program_is_not_described() -> None:
    loaded = pins({1: policy(CGROUPS["a"])})
    loaded.links.clear()
    assert describe_observed(observed(node(loaded)))["cgroups"] == {}


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_is_described_by_the_word_that_wishes_it(mode: Mode) -> None:
    desired = present(mode=mode)
    assert describe(desired, observed(node(), desired))["mode"] == mode.value
