"""What ipvs_bpf reads of unusual packets: options, extensions, kinds of ICMP, many fragments, carries."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    BACKEND_PORT,
    CLIENT,
    FRAGMENT_BYTES,
    PAYLOAD,
    PORT,
    PROTOCOLS,
    VERSIONS,
    begin,
    replied,
)
from tests.kernel.ipvs_programs import DONE, MASQUERADED_REQUEST, Director
from tests.support.packets import (
    ACK,
    IPV6_DESTINATION_OPTIONS,
    IPV6_HOP_OPTIONS,
    IPV6_ROUTING,
    SYN,
    TCP,
    UDP,
    Packet,
    error_about,
    fragment_frame,
    read,
    read_error,
    read_fragments,
    with_extensions,
    with_options,
)

HOP, DESTINATION, ROUTING = IPV6_HOP_OPTIONS, IPV6_DESTINATION_OPTIONS, IPV6_ROUTING
ROUTING_AND_MORE = [[(ROUTING, 8)], [(HOP, 8), (ROUTING, 8)], [(HOP, 8)] * 5]
#: Kinds of errors about a packet, and of other messages: by the version of IP.
ERRORS = [(4, (3, 4)), (4, (11, 0)), (4, (12, 0)), (6, (1, 4)), (6, (2, 0)), (6, (3, 0)), (6, (4, 0))]
NO_ERRORS = [(4, (8, 0)), (4, (0, 0)), (4, (5, 1)), (6, (0, 0)), (6, (5, 0)), (6, (128, 0)), (6, (137, 0))]


# ---- what may stand before TCP and UDP ----


def extended(packet: Packet, form: int | list[tuple[int, int]]) -> bytes:
    """Return a packet with so many bytes of options, or with extension headers."""
    return with_options(packet, b"\1" * form) if isinstance(form, int) else with_extensions(packet, form)


@PROTOCOLS
@pytest.mark.parametrize(
    ("version", "form"),
    [(4, 4), (4, 40), (6, [(HOP, 8)]), (6, [(HOP, 24)]), (6, [(HOP, 16), (DESTINATION, 8)])],
)
def test_options_before_the_transport(
    here: Director, version: int, form: int | list[tuple[int, int]], protocol: int
) -> None:
    first = Packet(CLIENT[version], ALWAYS[version], 40000, PORT, protocol, SYN if protocol == TCP else 0)
    assert here.take_in(extended(first, form)).mark == MASQUERADED_REQUEST
    scheduled = replace(first, destination=BACKEND[version], destination_port=BACKEND_PORT)
    at_backend = read(here.send_out(extended(scheduled, form), MASQUERADED_REQUEST).frame)
    assert at_backend == replace(scheduled, source=here.source[version], source_port=at_backend.source_port)
    flags = ACK if protocol == TCP else 0
    taken = here.take_in(extended(at_backend.turned(flags=flags, payload=PAYLOAD), form))
    assert taken.mark == DONE
    assert read(taken.frame) == scheduled.turned(flags=flags, payload=PAYLOAD)


@pytest.mark.parametrize("extensions", ROUTING_AND_MORE, ids=["routing", "behind", "too-many"])
def test_extension_headers_that_make_a_packet_none_of_ours(
    here: Director, extensions: list[tuple[int, int]]
) -> None:
    frame = with_extensions(Packet(CLIENT[6], ALWAYS[6], 40000, PORT, TCP, SYN), extensions)
    outcome = here.take_in(frame)
    assert (outcome.mark, outcome.frame) == (0, frame)
    assert not here.flows()


@VERSIONS
def test_an_answer_to_a_connection_begins_none(here: Director, version: int) -> None:
    """As of a server that happens to have a service's address: SYN and ACK."""
    assert here.take_in(Packet(CLIENT[version], ALWAYS[version], 40000, PORT, TCP, SYN | ACK)).mark == 0
    assert not here.flows()


# ---- messages of ICMP ----


@pytest.mark.parametrize(("version", "kind"), ERRORS)
def test_every_kind_of_error_about_a_packet_finds_its_client(
    here: Director, version: int, kind: tuple[int, int]
) -> None:
    session, at_backend = begin(here, version=version)
    outcome = here.take_in(error_about(at_backend, BACKEND[version], here.source[version], kind))
    assert outcome.mark == DONE
    _, receiver, about = read_error(outcome.frame)
    assert (receiver, about.source, about.source_port) == (
        session.first.source,
        session.first.source,
        session.first.source_port,
    )


@pytest.mark.parametrize(("version", "kind"), NO_ERRORS)
def test_other_messages_pass_whatever_they_hold(here: Director, version: int, kind: tuple[int, int]) -> None:
    _, at_backend = begin(here, version=version)
    frame = error_about(at_backend, BACKEND[version], here.source[version], kind)
    outcome = here.take_in(frame)
    assert (outcome.mark, outcome.frame) == (0, frame)


def test_an_error_whose_packet_has_options_where_ports_would_be_passes(here: Director) -> None:
    _, at_backend = begin(here)
    other = replace(at_backend, source_port=1, destination_port=2)
    options = struct.pack("!HH", at_backend.source_port, at_backend.destination_port)
    frame = error_about(other, BACKEND[4], here.source[4], frame=with_options(other, options))
    outcome = here.take_in(frame)
    assert (outcome.mark, outcome.frame) == (0, frame)


def test_an_error_about_a_later_fragment_with_contents_like_ports_passes(here: Director) -> None:
    _, at_backend = begin(here)
    contents = struct.pack("!HHI", at_backend.source_port, at_backend.destination_port, 0)
    about = fragment_frame(at_backend, contents, 8, False, 7)
    frame = error_about(at_backend, BACKEND[4], here.source[4], frame=about)
    outcome = here.take_in(frame)
    assert (outcome.mark, outcome.frame) == (0, frame)


# ---- fragments of many ----


@VERSIONS
def test_fragments_of_two_replies_at_once_find_their_own_clients(here: Director, version: int) -> None:
    ports = (40000, 40001)
    replies, clients = [], []
    for number, port in enumerate(ports):
        client = f"{CLIENT[version]}{number}"
        first = Packet(client, ALWAYS[version], port, PORT, UDP)
        mark = here.take_in(first).mark
        scheduled = replace(first, destination=BACKEND[version], destination_port=BACKEND_PORT)
        reply = read(here.send_out(scheduled, mark).frame).turned(payload=PAYLOAD * 2)
        replies.append(reply.fragments(FRAGMENT_BYTES, identification=100 + number))
        clients.append(client)
    taken = [[here.take_in(frame).frame for frame in together] for together in zip(*replies, strict=True)]
    for number, client in enumerate(clients):
        whole = read_fragments([frames[number] for frames in taken])
        assert (whole.destination, whole.destination_port) == (client, ports[number])


@VERSIONS
def test_fragments_without_their_first_one_pass(here: Director, version: int) -> None:
    _, at_backend = begin(here, version=version, protocol=UDP)
    _, *later = at_backend.turned(payload=PAYLOAD * 2).fragments(FRAGMENT_BYTES, identification=200)
    for frame in later:
        outcome = here.take_in(frame)
        assert (outcome.mark, outcome.frame) == (0, frame)


# ---- checksums ----


@PROTOCOLS
@pytest.mark.parametrize("client", ["9.2.9.77", "11.2.9.77", "fc02:1:a:b:c:d:e:4d", "fe02:1:a:b:c:d:e:4d"])
def test_sums_with_a_carry_into_the_carry(here: Director, client: str, protocol: int) -> None:
    """Of a client whose address is one beside ours, as a number of the machine's."""
    version = 6 if ":" in client else 4
    first = Packet(client, ALWAYS[version], 40000, PORT, protocol, SYN if protocol == TCP else 0)
    mark = here.take_in(first).mark
    scheduled = replace(first, destination=BACKEND[version], destination_port=BACKEND_PORT)
    at_backend = read(here.send_out(scheduled, mark).frame)
    assert at_backend.source == here.source[version]
    assert replied(here, at_backend.turned()).destination == client


@VERSIONS
def test_sums_of_many_clients(here: Director, version: int) -> None:
    for number in range(256):
        client = (
            f"10.{number}.{255 - number}.{number}" if version == 4 else f"fd{number:02x}::{number * 255:x}"
        )
        first = Packet(client, ALWAYS[version], 257 * number or 1, PORT, UDP, payload=bytes([number]))
        mark = here.take_in(first).mark
        scheduled = replace(first, destination=BACKEND[version], destination_port=BACKEND_PORT)
        assert read(here.send_out(scheduled, mark).frame).payload == bytes([number])
