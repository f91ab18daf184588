"""Services by a wish, on a simulated table: what was wished is there, and nothing else was touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.errors import ApplyFailed, Unsupported
from meshaccel.ipvs.desired import Desired, parse
from meshaccel.ipvs.model import RealServer, VirtualService
from meshaccel.ipvs.observe import Observed
from meshaccel.ipvs.plan import make_plan
from meshaccel.paths import NodePaths
from tests.unit.simulated_table import SCHEDULERS, SimulatedNode

WEB: dict[str, Any] = {
    "address": "10.0.0.1",
    "port": 80,
    "scheduler": "rr",
    "servers": ["10.1.0.1:80", "10.1.0.2:80"],
}
NAMES = {"address": "10.0.0.2", "port": 53, "protocol": "udp", "scheduler": "rr", "servers": ["10.1.0.3:53"]}
ABSENT = Desired(present=False)


def wish(*entries: object, **more: object) -> Desired:
    return parse({"services": list(entries), **more})


def summaries(node: SimulatedNode, desired: Desired) -> list[str]:
    """Converge; returns what was done, without the writing of files."""
    return [action.summary for action in node.converge(desired) if not action.kind.startswith("file.")]


# ---- one thing at a time ----


def test_a_new_service_comes_with_its_servers_and_is_kept_before_it_is_made() -> None:
    node = SimulatedNode()
    plan = node.plan(wish(WEB))
    assert [action.kind for action in plan] == ["file.write", "ipvs.make_service"]
    assert node.converge(wish(WEB)) == plan
    assert node.table.read() == wish(WEB).services
    assert node.table.sent == 3


def test_the_module_is_loaded_when_it_is_not_there_yet() -> None:
    plan = make_plan(wish(WEB), Observed(loaded=False), NodePaths())
    assert [action.kind for action in plan] == ["ipvs.load", "file.write", "ipvs.make_service"]
    assert make_plan(ABSENT, Observed(loaded=False), NodePaths()) == ()


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"scheduler": "wrr"}, ["set tcp 10.0.0.1:80 to wrr"]),
        (
            {"scheduler": "sh", "flags": ["sh-port"], "persistence_timeout": 60},
            ["set tcp 10.0.0.1:80 to sh sh-port persistent 60 s 255.255.255.255"],
        ),
        (
            {"servers": ["10.1.0.1:80", {"address": "10.1.0.2", "weight": 3}]},
            ["set 10.1.0.2:80 of tcp 10.0.0.1:80 to masquerade, weight 3"],
        ),
        (
            {"servers": [*WEB["servers"], "10.1.0.9:80"]},
            ["add 10.1.0.9:80 to tcp 10.0.0.1:80"],
        ),
        (
            {"servers": ["10.1.0.2:80"]},
            [
                "set 10.1.0.1:80 of tcp 10.0.0.1:80 to masquerade, weight 0",
                "wait up to 5 s for connections to 1 servers that leave",
                "remove 10.1.0.1:80 from tcp 10.0.0.1:80",
            ],
        ),
    ],
    ids=["scheduler", "flags and persistence", "weight", "one more", "one leaves"],
)
def test_a_change_is_made_in_place_with_a_message_for_it_alone(
    change: dict[str, object], done: list[str]
) -> None:
    node = SimulatedNode()
    node.converge(wish(WEB, NAMES))
    sent = node.table.sent
    node.table.touched.clear()
    assert summaries(node, wish({**WEB, **change}, NAMES)) == done
    assert node.table.sent - sent == sum("wait" not in line for line in done)
    assert len(node.table.touched) == 1


def test_a_server_that_leaves_at_once_is_not_waited_for() -> None:
    node = SimulatedNode()
    node.converge(wish(WEB))
    done = summaries(node, wish({**WEB, "servers": ["10.1.0.2:80"]}, drain_seconds=0))
    assert done == ["remove 10.1.0.1:80 from tcp 10.0.0.1:80"]
    assert node.drained == []


def test_a_service_that_goes_is_drained_first_with_all_others_in_one_wait() -> None:
    node = SimulatedNode()
    node.converge(wish(WEB, NAMES))
    done = summaries(node, ABSENT)
    assert done[3] == "wait up to 5 s for connections to 3 servers that leave"
    assert done[4:] == ["remove tcp 10.0.0.1:80", "remove udp 10.0.0.2:53"]
    assert len(node.drained) == 3
    assert (node.table.read(), node.document) == ((), None)


def test_a_scheduler_that_is_not_there_is_an_error_with_those_that_are() -> None:
    node = SimulatedNode()
    with pytest.raises(
        Unsupported, match="the scheduler sed in this kernel; found only mh, rr, sh, wlc, wrr"
    ):
        node.converge(wish({**WEB, "scheduler": "sed"}))
    assert (node.table.sent, node.document) == (0, None)


def test_where_schedulers_cannot_be_told_the_kernel_is_asked() -> None:
    observed = replace(SimulatedNode().observe(), schedulers=None)
    assert make_plan(wish({**WEB, "scheduler": "sed"}), observed, NodePaths())


# ---- whose services are ----


def test_a_service_of_somebody_else_is_left_alone() -> None:
    node = SimulatedNode(wish(NAMES).services)
    node.converge(wish(WEB))
    node.converge(ABSENT)
    assert node.table.read() == wish(NAMES).services
    assert node.table.touched == {service.key for service in wish(WEB).services}


def test_a_listed_service_of_somebody_else_is_brought_to_the_wish_and_stays_when_it_is_not_listed() -> None:
    node = SimulatedNode(wish({**WEB, "servers": []}).services)
    node.converge(wish(WEB))
    assert node.table.read() == wish(WEB).services
    assert node.converge(wish(WEB)) == ()
    node.converge(wish())
    assert node.table.read() == wish(WEB).services


def test_with_purge_services_of_somebody_else_go_too_but_not_with_absent() -> None:
    node = SimulatedNode(wish(NAMES).services)
    node.converge(wish(WEB, purge=True))
    assert node.table.read() == wish(WEB).services
    other = SimulatedNode(wish(NAMES).services)
    assert other.converge(replace(wish(purge=True), present=False)) == ()


def test_after_a_boot_all_listed_services_are_ours() -> None:
    node = SimulatedNode(wish(WEB).services)
    node.converge(wish(WEB))
    node.table.services.clear()
    node.converge(wish(WEB))
    node.converge(ABSENT)
    assert node.table.read() == ()


# ---- whatever the wishes ----

SERVERS = st.builds(
    RealServer,
    st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"]),
    st.sampled_from([80, 81]),
    weight=st.integers(0, 2),
    upper_threshold=st.sampled_from([0, 7]),
)
SERVICES = st.builds(
    VirtualService,
    protocol=st.sampled_from(["tcp", "udp"]),
    address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    port=st.just(80),
    firewall_mark=st.none(),
    family=st.just("ipv4"),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    servers=st.lists(SERVERS, unique_by=lambda server: server.key, max_size=4).map(
        lambda servers: tuple(sorted(servers))
    ),
) | st.builds(
    VirtualService,
    *(st.none(),) * 3,
    firewall_mark=st.integers(1, 2),
    family=st.just("ipv6"),
    scheduler=st.just("wlc"),
    servers=st.just(()),
)
LISTS = st.lists(SERVICES, unique_by=lambda service: service.key, max_size=5).map(tuple)
WISHES = st.builds(Desired, st.booleans(), LISTS, purge=st.booleans(), drain_seconds=st.sampled_from([0, 5]))
HISTORIES = st.lists(WISHES, max_size=3)


def brought(foreign: tuple[VirtualService, ...], history: list[Desired]) -> SimulatedNode:
    """Return a node that has seen these wishes."""
    node = SimulatedNode(foreign)
    for desired in history:
        node.converge(desired)
    return node


def is_usable(service: VirtualService) -> bool:
    return any(server.weight for server in service.servers)


@given(LISTS, HISTORIES, WISHES)
def test_a_wish_is_fulfilled_in_one_run_and_the_next_finds_nothing_to_do(
    foreign: tuple[VirtualService, ...], history: list[Desired], desired: Desired
) -> None:
    node = brought(foreign, history)
    before = dict(node.table.services)
    ours = node.observe().kept.ours
    node.table.touched.clear()
    node.converge(desired)
    after = node.table.services
    wished = {service.key: service for service in desired.services if desired.present}
    others = {
        key: service
        for key, service in before.items()
        if key not in wished and key not in ours and not (desired.present and desired.purge)
    }
    assert after == {**others, **wished}
    assert node.table.touched == {
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    }
    assert node.plan(desired) == ()
    assert (node.document is None) == (not desired.present)


@given(LISTS, HISTORIES, WISHES)
def test_a_service_that_stays_has_a_server_for_new_connections_all_the_time(
    foreign: tuple[VirtualService, ...], history: list[Desired], desired: Desired
) -> None:
    node = brought(foreign, history)
    before = dict(node.table.services)
    node.table.history.clear()
    node.converge(desired)
    staying = [
        key
        for key, service in before.items()
        if is_usable(service) and key in node.table.services and is_usable(node.table.services[key])
    ]
    assert all(is_usable(moment[key]) for moment in node.table.history for key in staying)


@given(LISTS, HISTORIES, WISHES, st.integers(1, 12))
def test_a_refused_message_leaves_the_node_as_it_was(
    foreign: tuple[VirtualService, ...], history: list[Desired], desired: Desired, message: int
) -> None:
    node = brought(foreign, history)
    before, document = dict(node.table.services), node.document
    node.table.fail_at = node.table.sent + message
    try:
        node.converge(desired)
    except ApplyFailed as error:
        undo_errors = error.undo_errors
    else:
        undo_errors, before, document = (), node.table.services, node.document
        assert node.plan(desired) == ()
    assert (undo_errors, node.table.services, node.document) == ((), before, document)


@given(LISTS, HISTORIES, WISHES, st.integers(0, 12))
def test_after_a_run_that_was_killed_it_is_still_known_which_services_are_ours(
    foreign: tuple[VirtualService, ...], history: list[Desired], desired: Desired, steps: int
) -> None:
    node = brought(foreign, [replace(each, purge=False) for each in history])
    ours_before, before = node.observe().kept.ours, dict(node.table.services)
    handlers = node.handlers()
    for action in node.plan(replace(desired, purge=False))[:steps]:
        handlers[action.kind](action.arguments)
    node.converge(ABSENT)
    assert node.table.services.keys() == before.keys() - ours_before
