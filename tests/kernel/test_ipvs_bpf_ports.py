"""Whose source port may be taken over and when, and how long ipvs_bpf keeps which session."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import FlowKind
from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    BACKEND_PORT,
    CLIENT,
    PORT,
    PROTOCOLS,
    VERSIONS,
    Session,
    begin,
    finish,
    replied,
    requested,
)
from tests.kernel.ipvs_programs import FIRST_PORT, Director
from tests.support.packets import ACK, FIN, RST, SYN, TCP, UDP, Packet
from tests.support.program_runs import DROP

SESSION = {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}


@pytest.fixture
def here(here: Director) -> Director:
    """The same with a single port."""
    here.declare_device(FIRST_PORT, FIRST_PORT)
    return here


def verdict_of_another(here: Director, protocol: int = TCP) -> int:
    """Begin another session to the same backend; return the verdict about its first packet."""
    first = Packet(CLIENT[4], ALWAYS[4], 50000, PORT, protocol, SYN if protocol == TCP else 0)
    mark = here.take_in(first).mark
    scheduled = replace(first, destination=BACKEND[4], destination_port=BACKEND_PORT)
    return here.send_out(scheduled, mark).verdict


def established(here: Director, protocol: int = TCP, **settings: object) -> tuple[Session, Packet]:
    """Begin a session and send a second packet."""
    session, at_backend = begin(here, protocol=protocol, **settings)  # type: ignore[arg-type]
    requested(here, session, session.following())
    return session, at_backend


# ---- whose port is taken over ----


@PROTOCOLS
def test_a_live_session_s_port_is_never_taken_however_quiet_it_is(here: Director, protocol: int) -> None:
    _, at_backend = established(here, protocol)
    here.age(290)
    assert verdict_of_another(here, protocol) == DROP
    reply = at_backend.turned(flags=ACK if protocol == TCP else 0)
    assert replied(here, reply).destination == CLIENT[4]


@pytest.mark.parametrize("finished", ["client", "backend"])
def test_a_half_closed_session_s_port_is_not_taken(here: Director, finished: str) -> None:
    session, at_backend = established(here)
    if finished == "client":
        requested(here, session, session.following(ACK | FIN, b""))
    else:
        replied(here, at_backend.turned(flags=ACK | FIN))
    here.age(60)
    assert verdict_of_another(here) == DROP


def test_a_session_s_port_is_not_taken_at_once_after_its_end(here: Director) -> None:
    """Its last packets may be on their way."""
    finish(here, *established(here))
    assert verdict_of_another(here) == DROP


@pytest.mark.parametrize(("protocol", "seconds"), [(TCP, 901), (UDP, 301)], ids=["tcp", "udp"])
def test_a_session_that_was_quiet_for_too_long_gives_its_port(
    here: Director, protocol: int, seconds: int
) -> None:
    established(here, protocol)
    here.age(seconds)
    assert verdict_of_another(here, protocol) != DROP
    assert here.flows() == SESSION


def test_while_another_port_is_free_a_closed_session_keeps_its_own(here: Director) -> None:
    here.declare_device(FIRST_PORT, FIRST_PORT + 1)
    before = here.counted()["ports_taken_over"]
    for number in range(10):
        backend = f"10.2.1.{number + 1}"
        session, at_backend = established(here, backend=backend, client_port=1000 + number)
        finish(here, session, at_backend)
        here.age(1.5)
        _, other = begin(here, backend=backend, client_port=2000 + number)
        assert other.source_port != at_backend.source_port
    assert here.counted()["ports_taken_over"] == before


def test_who_has_taken_a_port_over_is_as_alive_as_any(here: Director) -> None:
    finish(here, *established(here, client_port=1))
    here.age(1.5)
    established(here, client_port=2)
    here.age(1.5)
    assert verdict_of_another(here) == DROP


def test_a_port_that_is_taken_over_again_leaves_nothing_of_who_had_it(here: Director) -> None:
    """A session that lost its port, and stayed, would be waited for when the mode is switched off."""
    for client_port in (1, 2, 3):
        session, at_backend = begin(here, client_port=client_port)
        assert at_backend.source_port == FIRST_PORT
        requested(here, session, session.following(ACK | FIN, b""))
        replied(here, at_backend.turned(flags=ACK | FIN))
        assert here.flows() == SESSION
        here.age(60)


def test_a_port_that_is_reserved_for_conntrack_is_not_taken_however_old(here: Director) -> None:
    native = Packet(here.source[4], BACKEND[4], FIRST_PORT, BACKEND_PORT, TCP, SYN)
    here.send_out(native, 0)
    here.age(100000)
    assert verdict_of_another(here) == DROP
    assert here.flows()[FlowKind.RESERVED] == 1


@pytest.mark.parametrize(
    ("address", "port", "kept"),
    [(None, FIRST_PORT - 1, 0), (None, FIRST_PORT + 1, 0), ("10.2.9.78", FIRST_PORT, 0)],
)
def test_only_what_could_be_a_session_s_is_reserved(
    here: Director, address: str | None, port: int, kept: int
) -> None:
    native = Packet(address or here.source[4], BACKEND[4], port, BACKEND_PORT, TCP, SYN)
    here.send_out(native, 0)
    assert here.flows()[FlowKind.RESERVED] == kept


# ---- how long a session is kept ----


def ages(here: Director, seconds: float = 4) -> bool:
    """Return whether every flow is gone within so many seconds."""
    deadline = time.monotonic() + seconds
    while here.flows() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not here.flows()


@VERSIONS
def test_a_reset_is_the_end_of_both_directions(here: Director, version: int) -> None:
    here.declare_device()
    here.configure(closed=1, closing=100)
    session, _ = established(here, version=version)
    requested(here, session, session.following(RST, b""))
    assert ages(here)


def test_datagrams_are_kept_by_their_own_time(here: Director) -> None:
    here.configure(closed=1, udp=1, tcp=100)
    established(here, UDP)
    assert ages(here)


def test_each_is_kept_for_its_time(here: Director) -> None:
    """One client has finished, one has said nothing since the handshake, one is quiet and of datagrams."""
    here.declare_device()
    here.configure(closed=1, closing=100, tcp=100, udp=100)
    session, _ = established(here, client_port=1)
    requested(here, session, session.following(ACK | FIN, b""))
    begin(here, client_port=2)
    established(here, UDP, client_port=3)
    assert not ages(here, 2.5)
    assert here.flows() == dict.fromkeys(SESSION, 3)


def test_what_only_begins_is_not_kept_as_long_as_what_is_established(here: Director) -> None:
    here.configure(closed=1, closing=1, tcp=100)
    begin(here)
    assert ages(here)


def test_a_half_closed_session_is_not_kept_as_long_as_an_open_one(here: Director) -> None:
    here.configure(closed=1, closing=1, tcp=100)
    session, _ = established(here)
    requested(here, session, session.following(ACK | FIN, b""))
    assert ages(here)


def test_what_only_one_end_sends_is_kept_as_long(here: Director) -> None:
    here.configure(closed=1, closing=2, tcp=2, udp=2)
    _, at_backend = established(here)
    for _ in range(8):
        replied(here, at_backend.turned(flags=ACK))
        time.sleep(0.5)
    assert here.flows() == SESSION


def test_a_port_that_conntrack_has_is_kept_for_it_as_long_as_a_connection(here: Director) -> None:
    here.configure(closed=1, tcp=3)
    here.send_out(Packet(here.source[4], BACKEND[4], FIRST_PORT, BACKEND_PORT, TCP, SYN), 0)
    assert not ages(here, 2)
    assert ages(here)


def test_a_port_is_kept_for_a_connection_of_conntrack_s_that_is_used(here: Director) -> None:
    here.configure(closed=1, tcp=2)
    native = Packet(here.source[4], BACKEND[4], FIRST_PORT, BACKEND_PORT, TCP, SYN)
    here.send_out(native, 0)
    for _ in range(8):
        assert here.take_in(native.turned(flags=ACK)).mark == 0
        time.sleep(0.5)
    assert here.flows() == {FlowKind.RESERVED: 1}
