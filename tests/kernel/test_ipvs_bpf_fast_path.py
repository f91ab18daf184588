"""Which packets of ipvs_bpf take the fast path, whole and to the right place, and which take the slow one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import Masquerade
from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    CLIENT,
    FRAGMENT_BYTES,
    NEVER,
    PAYLOAD,
    VERSIONS,
    Session,
    begin,
    requested,
)
from tests.kernel.ipvs_programs import DEVICE, DONE, Director, director
from tests.support.packets import (
    ACK,
    ETHERNET_LENGTH,
    FIN,
    IPV6_HOP_OPTIONS,
    RST,
    SYN,
    TCP,
    TCP_LENGTH,
    UDP,
    Packet,
    read,
    with_extensions,
    with_options,
)
from tests.support.processes import run
from tests.support.program_runs import PASS, REDIRECT, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A packet so often takes the slow path; in seconds.
SELDOM, OFTEN = 1000, 1
MTU = 1400
HEADERS = {4: 40, 6: 60}
NETWORKS = {4: "10.0.0.0/8", 6: "fd00::/8"}


@pytest.fixture(scope="module")
def loaded() -> Iterator[Director]:
    """A director whose device leads to clients and backends."""
    with director() as made:
        for name in (DEVICE, "other"):
            run(["ip", "link", "set", name, "up"])
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            run(["sysctl", "-qw", setting])
        for version in (4, 6):
            run(["ip", "route", "add", NETWORKS[version], "dev", DEVICE])
            for address in (CLIENT[version], BACKEND[version]):
                run(["ip", "neighbour", "add", address, "lladdr", "02:00:00:00:00:01", "dev", DEVICE])
            for protocol in (TCP, UDP):
                made.declare(ALWAYS[version], Masquerade.ALWAYS, protocol)
                made.declare(NEVER[version], Masquerade.NEVER, protocol)
        yield made


@pytest.fixture
def here(loaded: Director) -> Director:
    loaded.clear()
    loaded.configure(fast_path=SELDOM)
    for version in (4, 6):
        route(version, MTU)
    return loaded


def route(version: int, mtu: int) -> None:
    """Give the way to clients and backends a size of packets; one that is not locked, no router looks at."""
    run(["ip", "route", "replace", NETWORKS[version], "dev", DEVICE, "mtu", "lock", str(mtu)])


def established(here: Director, version: int, **settings: object) -> tuple[Session, Packet]:
    """Begin a session, of TCP with its handshake; return it, and its first packet as the backend gets it."""
    session, at_backend = begin(here, version=version, **settings)  # type: ignore[arg-type]
    if session.first.protocol == TCP:
        requested(here, session, session.following(ACK, b""))
    return session, at_backend


def sent_fast(outcome: Outcome) -> Packet:
    """Return a packet that took the fast path."""
    assert (outcome.verdict, outcome.mark) == (REDIRECT, DONE)
    return read(outcome.frame)


# ---- what is fast ----


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("service", [NEVER, ALWAYS], ids=["plain", "masqueraded"])
def test_both_directions_get_all_of_their_addresses_at_once(
    here: Director, version: int, protocol: int, service: dict[int, str]
) -> None:
    session, at_backend = established(here, version, protocol=protocol, service=service)
    later = session.following()
    arrived = sent_fast(here.take_in(later))
    flags = later.flags
    assert arrived == at_backend.turned().turned(payload=later.payload, flags=flags, hops=later.hops - 1)
    reply = sent_fast(here.take_in(at_backend.turned(payload=PAYLOAD, flags=flags)))
    assert reply == later.turned(hops=63)


def test_the_route_is_looked_up_once_for_each_direction(here: Director) -> None:
    before = here.counted()["fast_path_flows"]
    session, at_backend = established(here, 4)
    for _ in range(3):
        sent_fast(here.take_in(session.following()))
        sent_fast(here.take_in(at_backend.turned(flags=ACK)))
    assert here.counted()["fast_path_flows"] == before + 2


def test_a_bit_for_other_people_s_rules_does_not_leave_with_it(here: Director) -> None:
    session, _ = begin(here, protocol=UDP)
    here.configure(fast_path=SELDOM, accepted=0x4000)
    assert here.take_in(session.following(), mark=0x84000).mark == DONE | 0x80000


# ---- what is slow ----


def test_by_default_all_are_slow(here: Director) -> None:
    here.configure()
    session, at_backend = established(here, 4)
    assert here.take_in(session.following()).verdict == PASS
    assert here.take_in(at_backend.turned(flags=ACK)).verdict == PASS


@VERSIONS
def test_nothing_is_fast_before_the_handshake_is_done(here: Director, version: int) -> None:
    session, at_backend = begin(here, version=version)
    assert here.take_in(at_backend.turned(flags=ACK)).verdict == PASS
    assert here.take_in(session.following()).verdict == PASS


@VERSIONS
@pytest.mark.parametrize("flags", [SYN, FIN | ACK, RST])
def test_what_begins_or_ends_a_connection_is_slow(here: Director, version: int, flags: int) -> None:
    session, at_backend = established(here, version)
    assert here.take_in(session.following(flags, b"")).verdict == PASS
    assert here.take_in(at_backend.turned(flags=flags)).verdict == PASS


@VERSIONS
def test_fragments_are_slow(here: Director, version: int) -> None:
    session, at_backend = established(here, version, protocol=UDP)
    for packet in (session.following(), at_backend.turned(payload=PAYLOAD)):
        first, *_ = packet.fragments(FRAGMENT_BYTES)
        assert here.take_in(first).verdict == PASS


@VERSIONS
def test_packets_with_options_are_slow(here: Director, version: int) -> None:
    session, _ = established(here, version)
    later = session.following()
    extended = (
        with_options(later, b"\1" * 4) if version == 4 else with_extensions(later, [(IPV6_HOP_OPTIONS, 8)])
    )
    assert here.take_in(extended).verdict == PASS


@VERSIONS
def test_a_packet_at_its_last_hop_is_left_to_the_stack_which_tells_its_sender(
    here: Director, version: int
) -> None:
    session, _ = established(here, version)
    for hops, verdict in ((1, PASS), (2, REDIRECT)):
        packet = Packet(session.first.source, session.first.destination, 40000, 80, TCP, ACK, b"", hops=hops)
        assert here.take_in(packet).verdict == verdict


@VERSIONS
def test_what_the_route_has_no_room_for_is_left_to_the_stack(here: Director, version: int) -> None:
    session, _ = established(here, version)
    room = MTU - HEADERS[version]
    assert here.take_in(session.following(payload=bytes(room))).verdict == REDIRECT
    assert here.take_in(session.following(payload=bytes(room + 1))).verdict == PASS


@VERSIONS
def test_of_what_is_to_be_cut_each_part_has_to_fit(here: Director, version: int) -> None:
    session, _ = established(here, version)
    room = MTU - HEADERS[version]
    whole = session.following(payload=bytes(2 * room))
    assert here.take_in(whole, segment=room).verdict == REDIRECT
    assert here.take_in(whole, segment=room + 1).verdict == PASS


@VERSIONS
def test_each_part_has_tcp_s_options_too(here: Director, version: int) -> None:
    session, _ = established(here, version)
    options = 12
    room = MTU - HEADERS[version] - options
    frame = bytearray(session.following(payload=bytes(options + 2 * room)).frame())
    # The first bytes of the payload are options, once the header says that it is longer.
    frame[ETHERNET_LENGTH + HEADERS[version] - TCP_LENGTH + 12] = (TCP_LENGTH + options) // 4 << 4
    assert here.take_in(bytes(frame), segment=room).verdict == REDIRECT
    assert here.take_in(bytes(frame), segment=room + 1).verdict == PASS


@VERSIONS
def test_without_a_route_it_is_left_to_the_stack(here: Director, version: int) -> None:
    session, _ = established(here, version)
    run(["ip", "route", "del", NETWORKS[version]])
    assert here.take_in(session.following()).verdict == PASS
    route(version, MTU)
    assert here.take_in(session.following()).verdict == REDIRECT


# ---- one of them is slow every so often ----


def until_slow_turn(here: Director, packet: Packet) -> None:
    """Send a packet again and again until it takes the slow path."""
    deadline = time.monotonic() + 10
    while here.take_in(packet).verdict == REDIRECT:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@VERSIONS
def test_after_its_slow_turn_a_request_is_fast_again_only_once_ipvs_has_let_it_by(
    here: Director, version: int
) -> None:
    here.configure(fast_path=OFTEN)
    session, _ = established(here, version)
    later = session.following(payload=b"")
    until_slow_turn(here, later)
    for _ in range(3):
        # Its backend is gone: IPVS drops them.
        assert here.take_in(later).verdict == PASS
    requested(here, session, later)
    assert here.take_in(later).verdict == REDIRECT


@VERSIONS
def test_after_its_slow_turn_a_reply_is_fast_by_the_route_there_is_now(here: Director, version: int) -> None:
    here.configure(fast_path=OFTEN)
    _, at_backend = established(here, version)
    reply, small = (at_backend.turned(flags=ACK, payload=bytes(size)) for size in (1300, 0))
    assert here.take_in(reply).verdict == REDIRECT
    route(version, 1290)
    until_slow_turn(here, small)
    assert here.take_in(small).verdict == REDIRECT
    assert here.take_in(reply).verdict == PASS
