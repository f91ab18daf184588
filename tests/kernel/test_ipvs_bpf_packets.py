"""What the programs of ipvs_bpf make of each packet, byte by byte; the test plays IPVS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, ProgramMode
from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    CLIENT,
    FRAGMENT_BYTES,
    NEVER,
    PAYLOAD,
    PORT,
    PROTOCOLS,
    REMOTE,
    VERSIONS,
    begin,
    replied,
    requested,
)
from tests.kernel.ipvs_programs import (
    DONE,
    FIRST_PORT,
    LAST_PORT,
    MASQUERADED_REQUEST,
    REQUEST,
    Director,
)
from tests.support.packets import (
    ACK,
    ICMP,
    IPV6_FRAGMENT,
    SYN,
    TCP,
    UDP,
    Packet,
    error_about,
    framed,
    ip_header,
    read,
    read_error,
    read_fragments,
)
from tests.support.program_runs import PASS

# ---- a session's packets ----


@VERSIONS
@PROTOCOLS
def test_without_masquerade_only_marks_change(here: Director, version: int, protocol: int) -> None:
    session, at_backend = begin(here, NEVER, version=version, protocol=protocol)
    assert at_backend == session.scheduled(session.first)
    later = session.following()
    assert requested(here, session, later) == session.scheduled(later)
    reply = session.scheduled(later).turned()
    assert replied(here, reply) == reply
    assert here.flows() == {FlowKind.REQUEST: 1, FlowKind.TRANSLATION: 1, FlowKind.REPLY: 1}


@VERSIONS
@PROTOCOLS
def test_masquerade_and_its_way_back(here: Director, version: int, protocol: int) -> None:
    session, at_backend = begin(here, version=version, protocol=protocol)
    port = at_backend.source_port
    assert FIRST_PORT <= port <= LAST_PORT
    masqueraded: dict[str, Any] = {"source": here.source[version], "source_port": port}
    assert at_backend == replace(session.scheduled(session.first), **masqueraded)
    later = session.following()
    assert requested(here, session, later) == replace(session.scheduled(later), **masqueraded)
    reply = requested(here, session, later).turned()
    assert replied(here, reply) == session.scheduled(later).turned()


@VERSIONS
def test_remote_clients_only_are_masqueraded(here: Director, version: int) -> None:
    local = Packet(CLIENT[version], REMOTE[version], 40000, PORT, TCP, SYN)
    remote = replace(local, source={4: "192.0.2.9", 6: "2001:db8::9"}[version])
    assert here.take_in(local).mark == REQUEST
    assert here.take_in(remote).mark == MASQUERADED_REQUEST


@VERSIONS
def test_a_pod_that_is_its_own_backend_is_masqueraded(here: Director, version: int) -> None:
    session, at_backend = begin(here, NEVER, version=version, backend=CLIENT[version])
    assert (at_backend.source, at_backend.destination) == (here.source[version], CLIENT[version])
    reply = replied(here, at_backend.turned(flags=SYN | ACK))
    assert (reply.destination, reply.destination_port) == (CLIENT[version], session.first.source_port)


def test_udp_without_checksum_stays_so(here: Director) -> None:
    first = Packet(CLIENT[4], ALWAYS[4], 40000, PORT, UDP, payload=PAYLOAD, has_checksum=False)
    here.take_in(first)
    sent = read(here.send_out(replace(first, destination=BACKEND[4]), MASQUERADED_REQUEST).frame)
    assert not sent.has_checksum
    assert sent.source == here.source[4]


def test_a_bit_for_other_people_s_rules_comes_along(here: Director) -> None:
    here.configure(accepted=0x4000)
    first = Packet(CLIENT[4], ALWAYS[4], 40000, PORT, TCP, SYN)
    assert here.take_in(first, mark=0x80000).mark == MASQUERADED_REQUEST | 0x4000 | 0x80000


def test_replies_have_the_bit_and_requests_that_are_not_masqueraded_have_it_not(here: Director) -> None:
    here.configure(accepted=0x4000)
    first = Packet(CLIENT[4], NEVER[4], 40000, PORT, TCP, SYN)
    at_backend = replace(first, destination=BACKEND[4])
    assert here.take_in(first).mark == REQUEST
    assert here.send_out(at_backend, REQUEST).mark == DONE
    assert here.take_in(replace(first, flags=ACK)).mark == REQUEST
    assert here.take_in(at_backend.turned(flags=SYN | ACK)).mark == DONE | 0x4000


@pytest.mark.parametrize("mark", [REQUEST, MASQUERADED_REQUEST, DONE])
def test_a_tunnel_s_own_packet_inherits_no_bit_of_other_people_s(here: Director, mark: int) -> None:
    here.configure(accepted=0x4000)
    packet = Packet(CLIENT[4], BACKEND[4], 40000, PORT, TCP, SYN)
    assert here.send_out(packet, mark | 0x4000 | 0x80000).mark == DONE | 0x80000


# ---- what is left alone ----


@VERSIONS
@PROTOCOLS
def test_what_is_no_service_passes(here: Director, version: int, protocol: int) -> None:
    packet = Packet(CLIENT[version], BACKEND[version], 40000, PORT, protocol, SYN)
    outcome = here.take_in(packet)
    assert (outcome.verdict, outcome.mark, outcome.frame) == (PASS, 0, packet.frame())
    assert not here.flows()


@VERSIONS
def test_the_middle_of_a_connection_that_is_no_session_passes(here: Director, version: int) -> None:
    before = here.counted()["native_unknown"]
    assert here.take_in(Packet(CLIENT[version], ALWAYS[version], 40000, PORT, TCP, ACK)).mark == 0
    assert here.counted()["native_unknown"] == before + 1
    assert not here.flows()


def test_off_touches_nothing(here: Director) -> None:
    session, at_backend = begin(here)
    here.configure(mode=ProgramMode.OFF)
    for packet in (session.first, session.following(), at_backend.turned()):
        outcome = here.take_in(packet)
        assert (outcome.mark, outcome.frame) == (0, packet.frame())
    assert here.send_out(session.scheduled(session.first), MASQUERADED_REQUEST).mark == MASQUERADED_REQUEST


def test_a_packet_that_is_marked_was_seen_before(here: Director) -> None:
    first = Packet(CLIENT[4], ALWAYS[4], 40000, PORT, TCP, SYN)
    assert here.take_in(first, mark=MASQUERADED_REQUEST).mark == MASQUERADED_REQUEST
    assert not here.flows()
    session, _ = begin(here)
    again = here.send_out(session.scheduled(session.first), DONE)
    assert again.frame == session.scheduled(session.first).frame()


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP, *ICMP.values(), IPV6_FRAGMENT, 0, 60])
@pytest.mark.parametrize("length", [0, 1, 3, 9])
def test_packets_cut_short_pass(here: Director, version: int, protocol: int, length: int) -> None:
    packet = Packet(CLIENT[version], ALWAYS[version], 1, PORT)
    frame = framed(version, ip_header(packet, 100, protocol) + bytes(length))
    for mark in (0, REQUEST, MASQUERADED_REQUEST):
        assert here.send_out(frame, mark).verdict == PASS
    assert here.take_in(frame).verdict == PASS


# ---- fragments ----


@VERSIONS
def test_fragments_of_a_reply_all_go_to_the_client(here: Director, version: int) -> None:
    _, at_backend = begin(here, version=version, protocol=UDP)
    reply = at_backend.turned(payload=PAYLOAD * 2)
    outcomes = [here.take_in(frame) for frame in reply.fragments(FRAGMENT_BYTES)]
    assert len(outcomes) > 2
    assert {(outcome.verdict, outcome.mark) for outcome in outcomes} == {(PASS, DONE)}
    whole = read_fragments([outcome.frame for outcome in outcomes])
    assert whole == reply.turned().turned(
        destination=CLIENT[version], destination_port=40000, hops=whole.hops
    )


@VERSIONS
def test_fragments_of_a_request_all_come_from_our_address(here: Director, version: int) -> None:
    session, at_backend = begin(here, version=version, protocol=UDP)
    request = session.scheduled(session.following(payload=PAYLOAD * 2))
    outcomes = [here.send_out(frame, MASQUERADED_REQUEST) for frame in request.fragments(FRAGMENT_BYTES)]
    whole = read_fragments([outcome.frame for outcome in outcomes])
    assert (whole.source, whole.source_port) == (here.source[version], at_backend.source_port)
    assert whole.payload == PAYLOAD * 2


# ---- ICMP errors ----


@VERSIONS
@PROTOCOLS
def test_an_error_from_the_backend_s_side_is_about_the_client_s_packet(
    here: Director, version: int, protocol: int
) -> None:
    session, at_backend = begin(here, version=version, protocol=protocol)
    outcome = here.take_in(error_about(at_backend, BACKEND[version], here.source[version]))
    assert (outcome.verdict, outcome.mark) == (PASS, DONE)
    sender, receiver, about = read_error(outcome.frame)
    # Of IPv4 IPVS does the rest; an ICMPv6 error that is not tracked it would drop.
    assert (sender, receiver) == (BACKEND[4] if version == 4 else ALWAYS[6], CLIENT[version])
    assert about == (session.scheduled(session.first) if version == 4 else session.first)


@VERSIONS
@PROTOCOLS
def test_an_error_from_the_client_s_side_is_about_what_the_backend_sent(
    here: Director, version: int, protocol: int
) -> None:
    session, at_backend = begin(here, version=version, protocol=protocol)
    at_client = session.first.turned(flags=ACK if protocol == TCP else 0, payload=PAYLOAD)
    taken = here.take_in(error_about(at_client, CLIENT[version], ALWAYS[version]))
    assert taken.mark == MASQUERADED_REQUEST
    # IPVS sends it on to the backend, about the packet as it was before IPVS.
    scheduled = session.scheduled(session.first).turned(flags=at_client.flags, payload=PAYLOAD)
    sent = here.send_out(error_about(scheduled, CLIENT[version], BACKEND[version]), taken.mark)
    _, receiver, about = read_error(sent.frame)
    assert receiver == BACKEND[version]
    assert about == at_backend.turned(flags=at_client.flags, payload=PAYLOAD)


@VERSIONS
def test_an_error_about_somebody_else_s_packet_passes(here: Director, version: int) -> None:
    begin(here, version=version)
    other = Packet(here.source[version], BACKEND[version], 1, 2, TCP, ACK)
    frame = error_about(other, BACKEND[version], here.source[version])
    outcome = here.take_in(frame)
    assert (outcome.mark, outcome.frame) == (0, frame)
