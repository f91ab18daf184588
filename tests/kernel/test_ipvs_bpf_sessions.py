"""How sessions of ipvs_bpf get ports, begin anew on the same, end and age, in each mode; the test is IPVS."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, Masquerade, ProgramMode
from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    BACKEND_PORT,
    CLIENT,
    NEVER,
    OTHER_BACKEND,
    PAYLOAD,
    PORT,
    PROTOCOLS,
    VERSIONS,
    begin,
    finish,
    replied,
    requested,
)
from tests.kernel.ipvs_programs import (
    FIRST_PORT,
    MASQUERADED_REQUEST,
    Director,
    director,
)
from tests.support.packets import (
    ACK,
    FIN,
    RST,
    SYN,
    TCP,
    Packet,
)
from tests.support.program_runs import DROP, PASS

# ---- ports ----


def test_two_sessions_never_share_a_port_at_a_backend(here: Director) -> None:
    clients = 300
    here.declare_device(1024, 29999)
    ports = {begin(here, client_port=20000 + each)[1].source_port for each in range(clients)}
    assert len(ports) == clients


def test_the_same_port_serves_at_another_backend(here: Director) -> None:
    here.declare_device(FIRST_PORT, FIRST_PORT)
    _, one = begin(here, client_port=1)
    _, other = begin(here, client_port=2, backend=OTHER_BACKEND[4])
    assert one.source_port == other.source_port == FIRST_PORT


def test_without_a_port_the_flow_is_left_to_conntrack(here: Director) -> None:
    here.declare_device(FIRST_PORT, FIRST_PORT)
    begin(here, client_port=1)
    before = here.counted()
    first = Packet(CLIENT[4], ALWAYS[4], 2, PORT, TCP, SYN)
    mark = here.take_in(first).mark
    assert (
        here.send_out(replace(first, destination=BACKEND[4], destination_port=BACKEND_PORT), mark).verdict
        == DROP
    )
    counted = here.counted()
    assert counted["ports_exhausted"] - before["ports_exhausted"] == 1
    assert counted["ports_in_use"] - before["ports_in_use"] == 5
    # What the client sends again is not touched any more, so conntrack has it.
    assert here.take_in(first).mark == 0
    assert here.flows()[FlowKind.LEGACY] == 1


def test_a_dead_session_s_port_is_taken_over(here: Director) -> None:
    here.declare_device(FIRST_PORT, FIRST_PORT)
    session, at_backend = begin(here, client_port=1)
    requested(here, session, session.following())
    finish(here, session, at_backend)
    here.age(1.5)
    new, _ = begin(here, client_port=2)
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}
    assert replied(here, at_backend.turned(flags=SYN | ACK)).destination_port == new.first.source_port


def test_without_an_address_a_masqueraded_packet_goes_nowhere(here: Director) -> None:
    here.remove_device()
    before = here.counted()["dropped_no_address"]
    first = Packet(CLIENT[4], ALWAYS[4], 1, PORT, TCP, SYN)
    mark = here.take_in(first).mark
    assert here.send_out(replace(first, destination=BACKEND[4]), mark).verdict == DROP
    assert here.counted()["dropped_no_address"] == before + 1


@VERSIONS
def test_what_began_by_a_device_without_programs_goes_on_without_them(here: Director, version: int) -> None:
    first = Packet(CLIENT[version], ALWAYS[version], 40000, PORT, TCP, SYN)
    mark = here.take_in(first).mark
    # Its first packet has left otherwise; now the device has programs.
    later = replace(first, flags=ACK, payload=PAYLOAD)
    assert here.take_in(later).mark == mark
    scheduled = replace(later, destination=BACKEND[version], destination_port=BACKEND_PORT)
    sent = here.send_out(scheduled, mark)
    assert (sent.verdict, sent.frame) == (PASS, scheduled.frame())
    assert here.flows() == {FlowKind.LEGACY: 1}
    assert here.take_in(later).mark == 0


# ---- the same addresses and ports again ----


def test_a_client_that_begins_anew_gets_a_new_session(here: Director) -> None:
    session, at_backend = begin(here)
    requested(here, session, session.following())
    finish(here, session, at_backend)
    begin(here, backend=OTHER_BACKEND[4])
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}


def test_a_first_packet_that_is_sent_again_is_of_the_same_session(here: Director) -> None:
    session, at_backend = begin(here)
    assert begin(here)[1] == at_backend
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}
    assert session.first.source_port == 40000


def test_a_live_session_is_not_given_to_another_service_s_client(here: Director) -> None:
    session, at_backend = begin(here, NEVER)
    requested(here, session, session.following())
    first = replace(session.first, destination=ALWAYS[4])
    before = here.counted()["sessions_clashed"]
    mark = here.take_in(first).mark
    assert here.send_out(session.scheduled(first), mark).verdict == DROP
    assert here.counted()["sessions_clashed"] == before + 1
    reply = at_backend.turned(flags=ACK, payload=PAYLOAD)
    assert replied(here, reply) == reply


def test_a_native_connection_takes_a_session_s_addresses_back(here: Director) -> None:
    session, at_backend = begin(here, NEVER)
    before = here.counted()["sessions_replaced"]
    native = session.scheduled(session.first)
    assert here.send_out(native, 0).frame == native.frame()
    assert here.counted()["sessions_replaced"] == before + 1
    # Else its replies would be taken for the session's, and conntrack would not see them.
    assert here.take_in(at_backend.turned(flags=SYN | ACK)).mark == 0
    assert not here.flows()


def test_a_port_that_conntrack_has_given_away_is_not_taken(here: Director) -> None:
    here.declare_device(FIRST_PORT, FIRST_PORT + 1)
    native = Packet(here.source[4], BACKEND[4], FIRST_PORT, BACKEND_PORT, TCP, SYN)
    assert here.send_out(native, 0).frame == native.frame()
    assert here.flows() == {FlowKind.RESERVED: 1}
    assert begin(here)[1].source_port == FIRST_PORT + 1
    assert here.take_in(native.turned(flags=SYN | ACK)).mark == 0


# ---- modes ----


def test_observe_notes_what_is_conntrack_s(here: Director) -> None:
    here.configure(mode=ProgramMode.OBSERVE)
    first = Packet(CLIENT[4], ALWAYS[4], 40000, PORT, TCP, SYN)
    assert here.take_in(first).mark == 0
    here.configure()
    # Sent again, while the connection is being made: it stays conntrack's.
    assert here.take_in(first).mark == 0
    assert here.flows() == {FlowKind.LEGACY: 1}
    here.age(61)
    assert here.take_in(first).mark == MASQUERADED_REQUEST


@PROTOCOLS
def test_drain_finishes_sessions_and_begins_none(here: Director, protocol: int) -> None:
    session, at_backend = begin(here, protocol=protocol)
    here.configure(mode=ProgramMode.DRAIN)
    later = session.following()
    assert requested(here, session, later).source_port == at_backend.source_port
    assert replied(here, at_backend.turned(payload=PAYLOAD)).destination == CLIENT[4]
    new = replace(session.first, source_port=40001)
    assert here.take_in(new).mark == 0


def test_while_draining_a_client_that_begins_anew_is_conntrack_s(here: Director) -> None:
    session, at_backend = begin(here)
    requested(here, session, session.following())
    finish(here, session, at_backend)
    here.configure(mode=ProgramMode.DRAIN)
    assert here.take_in(session.first).mark == 0
    assert not here.flows()


# ---- the table, and ageing ----


def test_with_a_full_table_new_flows_are_conntrack_s_and_sessions_live() -> None:
    with director(sessions=2) as here:
        here.declare(ALWAYS[4], Masquerade.ALWAYS, TCP)
        session, at_backend = begin(here, client_port=1)
        others = [Packet(CLIENT[4], ALWAYS[4], port, PORT, TCP, SYN) for port in range(2, 10)]
        marks = [here.take_in(other).mark for other in others]
        assert marks[-1] == 0
        assert here.counted()["native_table_full"]
        assert replied(here, at_backend.turned(flags=SYN | ACK)).destination == CLIENT[4]
        assert requested(here, session, session.following()).source == here.source[4]


def wait_until_empty(here: Director) -> None:
    """Wait until every flow has aged."""
    deadline = time.monotonic() + 10
    while here.flows() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not here.flows()


@VERSIONS
@pytest.mark.parametrize("end", [FIN, RST])
def test_a_closed_session_ages_away(here: Director, version: int, end: int) -> None:
    here.configure(closed=1, closing=1)
    session, at_backend = begin(here, version=version)
    requested(here, session, session.following())
    requested(here, session, session.following(ACK | end, b""))
    if end == FIN:
        replied(here, at_backend.turned(flags=ACK | FIN))
    wait_until_empty(here)


def test_what_is_left_of_a_backend_that_ipvs_has_replaced_ages_too(here: Director) -> None:
    """The first packet is sent again, and in the meantime its backend was taken out."""
    here.configure(closed=1, closing=1)
    begin(here)
    begin(here, backend=OTHER_BACKEND[4])
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 2, FlowKind.REPLY: 2}
    wait_until_empty(here)


def test_a_session_that_is_used_does_not_age(here: Director) -> None:
    here.configure(closed=1, closing=2, tcp=2)
    session, _ = begin(here)
    for _ in range(8):
        requested(here, session, session.following())
        time.sleep(0.5)
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}
