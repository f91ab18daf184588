"""The table of flows read as sessions, as the programs of bpf/ipvs_bpf mean it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from meshaccel.accelerators.ipvs_bpf import reservation, sessions
from meshaccel.accelerators.ipvs_bpf.layout import (
    BACKEND_FINISHED,
    CLIENT_FINISHED,
    LINKED,
    MASQUERADED,
    RESET,
    FlowKind,
    Point,
)
from meshaccel.accelerators.ipvs_bpf.sessions import NANOSECONDS, Flow, Key, Table
from meshaccel.accelerators.ipvs_bpf.state import Settings, Source
from meshaccel.ipvs.model import AddressKey
from meshaccel.ports import PortRange
from meshaccel.system import conntrack

NOW = 10_000 * NANOSECONDS
CLIENT, SERVICE, BACKEND, OWN = (
    sessions.packed(ipaddress.ip_address(text))
    for text in ("192.0.2.9", "10.96.0.1", "10.244.0.5", "10.244.0.1")
)
NONE = bytes(16)
SETTINGS = Settings(
    1, 2, 0, 0, 180, tcp_seconds=900, tcp_closing_seconds=120, tcp_closed_seconds=60, udp_seconds=300
)
SOURCE = Source(ipaddress.ip_address("10.244.0.1"), None, PortRange(1024, 29999))


def session(
    *, flags: int = LINKED, reply_flags: int = 0, quiet: int = 0, port: int = 4000, udp: bool = False
) -> dict[Key, Flow]:
    """Return the three flows of a masqueraded session that was quiet for so many seconds."""
    protocol = socket.IPPROTO_UDP if udp else socket.IPPROTO_TCP
    seen, flags = NOW - quiet * NANOSECONDS, flags | MASQUERADED
    to_backend = (OWN, BACKEND, 1024 + port, 8080)
    return {
        Key(CLIENT, SERVICE, port, 80, protocol, Point.INGRESS): Flow(
            seen, *to_backend, FlowKind.REQUEST, flags
        ),
        Key(CLIENT, BACKEND, port, 8080, protocol, Point.EGRESS): Flow(
            seen, *to_backend, FlowKind.TRANSLATION, flags
        ),
        Key(BACKEND, OWN, 8080, 1024 + port, protocol, Point.INGRESS): Flow(
            seen, SERVICE, CLIENT, 80, port, FlowKind.REPLY, reply_flags | MASQUERADED
        ),
    }


def only(table: Table) -> sessions.Session:
    """Return the one session of a table."""
    (found,) = sessions.sessions(table)
    return found


def test_a_session_says_its_service_its_backend_and_whether_an_off_ends_it() -> None:
    found = only(session())
    assert found.service == AddressKey("tcp", "10.96.0.1", 80)
    assert found.backend == ("10.244.0.5", 8080)
    assert found.masqueraded


@pytest.mark.parametrize(
    ("flows", "alive"),
    [
        (session(), True),
        (session(flags=LINKED | CLIENT_FINISHED), True),
        (session(flags=LINKED | CLIENT_FINISHED, reply_flags=BACKEND_FINISHED), False),
        (session(reply_flags=RESET), False),
        (session(quiet=800), True),
        (session(udp=True, quiet=59), True),
        (session(udp=True, quiet=61), False),
    ],
)
def test_a_drain_waits_for_what_is_alive(flows: dict[Key, Flow], *, alive: bool) -> None:
    assert only(flows).alive(NOW) is alive


@pytest.mark.parametrize(
    ("flows", "limit"),
    [
        ({}, 900),
        ({"flags": 0}, 120),
        ({"flags": LINKED | CLIENT_FINISHED}, 120),
        ({"flags": LINKED | CLIENT_FINISHED, "reply_flags": BACKEND_FINISHED}, 60),
        ({"flags": LINKED | RESET}, 60),
        ({"udp": True}, 300),
    ],
)
def test_what_is_over_goes_with_all_its_flows(flows: dict[str, Any], limit: int) -> None:
    kept = session(**flows, quiet=limit - 1)
    assert sessions.aged(kept, SETTINGS, NOW) == []
    over = session(**flows, quiet=limit)
    assert set(sessions.aged(over, SETTINGS, NOW)) == set(over)


def test_a_reply_that_was_seen_keeps_its_session() -> None:
    table = session(quiet=5000)
    reply = Key(BACKEND, OWN, 8080, 5024, socket.IPPROTO_TCP, Point.INGRESS)
    table[reply] = table[reply]._replace(last_seen=NOW)
    assert sessions.aged(table, SETTINGS, NOW) == []


def test_a_reply_that_was_given_to_another_client_is_not_taken_along() -> None:
    table = session(quiet=5000)
    reply = Key(BACKEND, OWN, 8080, 5024, socket.IPPROTO_TCP, Point.INGRESS)
    table[reply] = table[reply]._replace(new_destination_port=1)
    assert reply not in sessions.aged(table, SETTINGS, NOW)
    assert len(sessions.aged(table, SETTINGS, NOW)) >= 2


@pytest.mark.parametrize(("quiet", "over"), [(179, 0), (180, 1)])
def test_legacy_flows_age_by_themselves_and_reserved_ones_do_not(quiet: int, over: int) -> None:
    seen = NOW - quiet * NANOSECONDS
    legacy = Key(CLIENT, SERVICE, 1, 80, 6, Point.INGRESS)
    reserved = Key(BACKEND, OWN, 8080, 1, 6, Point.INGRESS)
    table = {
        legacy: Flow(seen, NONE, NONE, 0, 0, FlowKind.LEGACY, 0),
        reserved: Flow(0, NONE, NONE, 0, 0, FlowKind.RESERVED, 0),
    }
    assert sessions.aged(table, SETTINGS, NOW) == [legacy][:over]


def test_ports_in_use_are_counted_by_address() -> None:
    reserved = {Key(BACKEND, OWN, 8080, 7, 6, Point.INGRESS): Flow(0, NONE, NONE, 0, 0, FlowKind.RESERVED, 0)}
    table = {**session(), **session(port=4001), **reserved}
    assert sessions.ports_in_use(table, [SOURCE]) == {"10.244.0.1": 3}


def test_keys_are_packed_and_unpacked() -> None:
    for key in session():
        assert sessions.unpacked_key(sessions.packed_key(key)) == key


def test_ports_that_conntrack_has_given_away_are_replies_to_our_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = conntrack.Direction("192.0.2.9", "10.96.0.1", 4000, 80)

    def flow(port: int, protocol: str = "tcp") -> conntrack.Flow:
        return conntrack.Flow(protocol, original, conntrack.Direction("10.244.0.5", "10.244.0.1", 8080, port))

    asked: list[list[str]] = []

    def replies_to(addresses: Iterable[str]) -> tuple[conntrack.Flow, ...]:
        asked.append(list(addresses))
        return (flow(2000), flow(2001, "udp"), flow(40000), flow(0, "icmp"))

    monkeypatch.setattr(conntrack, "replies_to", replies_to)
    assert reservation.taken([SOURCE]) == {
        Key(BACKEND, OWN, 8080, 2000, 6, Point.INGRESS),
        Key(BACKEND, OWN, 8080, 2001, 17, Point.INGRESS),
    }
    assert asked == [["10.244.0.1"]]
