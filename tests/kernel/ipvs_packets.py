"""Services in the programs of ipvs_bpf, and packets of sessions with them, as clients and IPVS send them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import Masquerade
from tests.kernel.ipvs_programs import (
    DONE,
    MASQUERADED_REQUEST,
    REQUEST,
    Director,
    director,
)
from tests.support.packets import (
    ACK,
    FIN,
    SYN,
    TCP,
    UDP,
    Packet,
    read,
)
from tests.support.program_runs import PASS

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


@contextlib.contextmanager
def director_with_services() -> Iterator[Director]:
    """Load the programs, with a service of each masquerade, in both families and protocols."""
    with director() as made:
        for version in (4, 6):
            made.declare_local(LOCAL[version])
            for protocol in (TCP, UDP):
                made.declare(NEVER[version], Masquerade.NEVER, protocol)
                made.declare(ALWAYS[version], Masquerade.ALWAYS, protocol)
                made.declare(REMOTE[version], Masquerade.REMOTE, protocol)
        yield made


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
