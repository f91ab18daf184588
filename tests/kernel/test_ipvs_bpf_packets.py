"""What the programs of ipvs_bpf make of each packet, byte by byte; the test plays IPVS."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, Masquerade, ProgramMode
from tests.kernel.ipvs_programs import (
    DONE,
    FIRST_PORT,
    LAST_PORT,
    MASQUERADED_REQUEST,
    REQUEST,
    Director,
    director,
)
from tests.support.packets import (
    ACK,
    FIN,
    ICMP,
    IPV6_FRAGMENT,
    RST,
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
from tests.support.program_runs import DROP, PASS

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = {4: "10.1.0.2", 6: "fd01::2"}
NEVER = {4: "10.96.0.1", 6: "fd96::1"}
ALWAYS = {4: "10.96.0.2", 6: "fd96::2"}
REMOTE = {4: "10.96.0.3", 6: "fd96::3"}
BACKEND = {4: "10.2.0.2", 6: "fd02::2"}
OTHER_BACKEND = {4: "10.2.0.3", 6: "fd02::3"}
LOCAL = {4: "10.1.0.0/16", 6: "fd01::/64"}
PORT = 80
BACKEND_PORT = 8080
PAYLOAD = bytes(range(256)) * 4
FRAGMENT_BYTES = 512

VERSIONS = pytest.mark.parametrize("version", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(scope="module")
def loaded() -> Iterator[Director]:
    with director() as made:
        for version in (4, 6):
            made.declare_local(LOCAL[version])
            for protocol in (TCP, UDP):
                made.declare(NEVER[version], Masquerade.NEVER, protocol)
                made.declare(ALWAYS[version], Masquerade.ALWAYS, protocol)
                made.declare(REMOTE[version], Masquerade.REMOTE, protocol)
        yield made


@pytest.fixture
def here(loaded: Director) -> Director:
    loaded.clear()
    loaded.configure()
    loaded.declare_device()
    return loaded


@dataclass(frozen=True)
class Session:
    """A session's addresses, as packets of it are made from."""

    first: Packet
    """Of the client to the service."""
    backend: str
    masqueraded: bool

    @property
    def mark(self) -> int:
        """Return what requests are marked with."""
        return MASQUERADED_REQUEST if self.masqueraded else REQUEST

    def scheduled(self, packet: Packet) -> Packet:
        """Return a request as IPVS sends it on."""
        return replace(packet, destination=self.backend, destination_port=BACKEND_PORT)

    def following(self, flags: int = ACK, payload: bytes = PAYLOAD) -> Packet:
        """Return a later request."""
        return replace(self.first, flags=flags if self.first.protocol == TCP else 0, payload=payload)


def begin(
    here: Director,
    service: dict[int, str] = ALWAYS,
    *,
    version: int = 4,
    protocol: int = TCP,
    client_port: int = 40000,
    backend: str | None = None,
) -> tuple[Session, Packet]:
    """Send a session's first packet through; returns it, and the packet as the backend gets it."""
    flags = SYN if protocol == TCP else 0
    first = Packet(CLIENT[version], service[version], client_port, PORT, protocol, flags)
    masqueraded = service is ALWAYS
    session = Session(first, backend or BACKEND[version], masqueraded)
    arrived = here.take_in(first)
    assert (arrived.verdict, arrived.mark) == (PASS, session.mark)
    assert read(arrived.frame) == first
    sent = here.send_out(session.scheduled(first), session.mark)
    assert (sent.verdict, sent.mark) == (PASS, DONE)
    return session, read(sent.frame)


def requested(here: Director, session: Session, packet: Packet) -> Packet:
    """Send a later request through and return it as the backend gets it."""
    assert here.take_in(packet).mark == session.mark
    sent = here.send_out(session.scheduled(packet), session.mark)
    assert sent.verdict == PASS
    return read(sent.frame)


def replied(here: Director, packet: Packet) -> Packet:
    """Take a reply in and return it as IPVS gets it."""
    taken = here.take_in(packet)
    assert (taken.verdict, taken.mark) == (PASS, DONE)
    return read(taken.frame)


def finish(here: Director, session: Session, at_backend: Packet) -> None:
    """Close a session from both sides."""
    requested(here, session, session.following(ACK | FIN, b""))
    replied(here, at_backend.turned(flags=ACK | FIN))


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
