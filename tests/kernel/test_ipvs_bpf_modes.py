"""Which session a packet of ipvs_bpf is counted to, in each mode, and which stays conntrack's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from meshaccel.accelerators.ipvs_bpf import layout
from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, ProgramMode
from tests.kernel.ipvs_packets import (
    ALWAYS,
    BACKEND,
    BACKEND_PORT,
    CLIENT,
    PAYLOAD,
    PORT,
    PROTOCOLS,
    begin,
    replied,
    requested,
)
from tests.kernel.ipvs_programs import MASQUERADED_REQUEST, Director
from tests.support.packets import ACK, FIN, SYN, TCP, UDP, Packet
from tests.support.program_runs import DROP

if TYPE_CHECKING:
    pass

LEGACY_SECONDS = 60


def requests(here: Director) -> dict[int, layout.Flow]:
    """Return the requests by the client's port."""
    return {
        int.from_bytes(key.source_port.to_bytes(2, "little"), "big"): flow
        for key, flow in here.flow_entries()
        if flow.kind == FlowKind.REQUEST
    }


# ---- whose packet it is ----


def test_a_request_that_ipvs_has_dropped_is_not_taken_for_the_next_one_s(here: Director) -> None:
    session, _ = begin(here, client_port=1)
    requested(here, session, session.following())
    lost = Packet(CLIENT[4], ALWAYS[4], 2, PORT, TCP, SYN)
    assert here.take_in(lost).mark == MASQUERADED_REQUEST
    requested(here, session, session.following())
    assert requests(here)[2].new_destination_port == 0
    assert requests(here)[1].new_destination_port != 0


def test_a_note_is_of_one_packet(here: Director) -> None:
    """The director itself sends to a backend, by the client's address and port and marked as ours."""
    first = Packet(CLIENT[4], ALWAYS[4], 1, PORT, TCP, SYN)
    mark = here.take_in(first).mark
    for backend in ("10.2.0.2", "10.2.0.3"):
        here.send_out(replace(first, destination=backend, destination_port=BACKEND_PORT), mark)
    (request,) = requests(here).values()
    assert bytes(request.new_destination)[-4:] == bytes([10, 2, 0, 2])


@PROTOCOLS
def test_sessions_are_counted_once_with_their_service(here: Director, protocol: int) -> None:
    def counted() -> tuple[int, int]:
        with here.open_map("services", layout.ServiceKey, layout.Service) as services:
            of_services = sum(service.sessions for _, service in services.items())
        return here.counted()["sessions"], of_services

    before = counted()
    session, at_backend = begin(here, protocol=protocol)
    requested(here, session, session.following())
    replied(here, at_backend.turned(payload=PAYLOAD))
    assert counted() == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("end", ["client", "backend"])
def test_after_one_end_has_finished_the_other_is_still_served(here: Director, end: str) -> None:
    session, at_backend = begin(here)
    requested(here, session, session.following())
    if end == "client":
        requested(here, session, session.following(ACK | FIN, b""))
    else:
        replied(here, at_backend.turned(flags=ACK | FIN))
    assert requested(here, session, session.following(ACK)).source_port == at_backend.source_port
    assert replied(here, at_backend.turned(flags=ACK)).destination == CLIENT[4]


def test_a_device_without_an_address_of_the_family_masquerades_none_of_it(here: Director) -> None:
    with mock.patch.dict(here.source, {6: "::"}):
        here.declare_device()
    before = here.counted()["dropped_no_address"]
    first = Packet(CLIENT[6], ALWAYS[6], 1, PORT, TCP, SYN)
    mark = here.take_in(first).mark
    assert here.send_out(replace(first, destination=BACKEND[6]), mark).verdict == DROP
    assert here.counted()["dropped_no_address"] == before + 1
    begin(here)


# ---- draining ----


@pytest.mark.parametrize(
    ("mode", "quiet", "ours"), [("drain", 59, True), ("drain", 61, False), ("on", 61, True)]
)
def test_while_draining_datagrams_that_were_quiet_for_a_minute_are_over(
    here: Director, mode: str, quiet: int, *, ours: bool
) -> None:
    session, _ = begin(here, protocol=UDP)
    ended = here.counted()["sessions_ended"]
    here.configure(mode=ProgramMode(mode))
    here.age(quiet)
    assert here.take_in(session.following()).mark == (MASQUERADED_REQUEST if ours else 0)
    assert here.counted()["sessions_ended"] == ended + (not ours)


# ---- what is conntrack's ----


def noted(here: Director, protocol: int) -> Packet:
    """Have a client's flow noted as conntrack's; return its first packet."""
    here.configure(mode=ProgramMode.OBSERVE, legacy=LEGACY_SECONDS)
    first = Packet(CLIENT[4], ALWAYS[4], 40000, PORT, protocol, SYN if protocol == TCP else 0)
    assert here.take_in(first).mark == 0
    here.configure(legacy=LEGACY_SECONDS)
    return first


def test_datagrams_of_conntrack_s_stay_so_while_they_go_on(here: Director) -> None:
    first = noted(here, UDP)
    for _ in range(3):
        here.age(LEGACY_SECONDS - 20)
        assert here.take_in(first).mark == 0
    here.age(LEGACY_SECONDS + 1)
    assert here.take_in(first).mark == MASQUERADED_REQUEST


def test_a_connection_of_conntrack_s_is_known_by_its_begin_alone(here: Director) -> None:
    first = noted(here, TCP)
    here.age(LEGACY_SECONDS - 20)
    assert here.take_in(replace(first, flags=ACK)).mark == 0
    here.age(30)
    assert here.take_in(first).mark == MASQUERADED_REQUEST, "the client's port is used again"


@pytest.mark.parametrize("mode", ["observe", "drain"])
@PROTOCOLS
def test_only_a_node_that_is_on_takes_what_was_conntrack_s(here: Director, mode: str, protocol: int) -> None:
    first = noted(here, protocol)
    here.configure(mode=ProgramMode(mode), legacy=LEGACY_SECONDS)
    here.age(LEGACY_SECONDS + 1)
    assert here.take_in(first).mark == 0
    assert here.flows() == {FlowKind.LEGACY: 1}
