# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which servers an operator wishes to be relayed: parsed and validated, nothing touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....checks import invalid
from ....model import Json

#: As many as bpf/include/meshaccel/sockops_relay.h has room for.
MOST_RELAYS = 16
KEYS = frozenset({"from", "to"})
LARGEST_PORT = 65535
MOST_PORT_DIGITS = 5
IPV4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
IPV4_MULTICAST_AND_RESERVED = 224
IPV6_MULTICAST = 0xFF
EXAMPLE = "for example {from: 127.0.0.1:1234, to: '[::1]:4321'}"


@dataclass(frozen=True, order=True)
class Address:
    """Where a server is reached: IPv6 or v4-mapped IPv4 in network order, and the port."""

    host: bytes
    port: int

    def __str__(self) -> str:
        # Costs a run without relays nothing.
        import socket

        if self.host.startswith(IPV4_MAPPED_PREFIX):
            return f"{socket.inet_ntop(socket.AF_INET, self.host[len(IPV4_MAPPED_PREFIX) :])}:{self.port}"
        return f"[{socket.inet_ntop(socket.AF_INET6, self.host)}]:{self.port}"


@dataclass(frozen=True, order=True)
class Relay:
    """Two servers. The n-th connection that waits at the one is joined with the other's n-th."""

    from_address: Address
    to_address: Address

    def __str__(self) -> str:
        return f"{self.from_address} - {self.to_address}"

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Both addresses, in the order of the sides."""
        return (self.from_address, self.to_address)

    def as_dict(self) -> dict[str, Json]:
        """Returns the relay in the words of ``sockops_relays``."""
        return {"from": str(self.from_address), "to": str(self.to_address)}


def parse_relays(entries: Json, *, any_cgroup: bool) -> tuple[Relay, ...]:
    """Parses ``sockops_relays``; None means none. A relay acts in the named cgroups, if there are any.

    Raises InvalidInput for the first thing that is wrong.
    """
    if entries is None:
        return ()
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        invalid("a list for sockops_relays", repr(entries), EXAMPLE)
    if len(entries) > MOST_RELAYS:
        invalid(f"at most {MOST_RELAYS} relays", str(len(entries)), "leave some out")
    relays = tuple(parse_relay(entry) for entry in entries)
    check_each_server_once(relays)
    if relays and not any_cgroup:
        invalid("the cgroups of the relayed servers in sockops_cgroups", "none", "name them")
    return relays


def parse_relay(entry: Json) -> Relay:
    """Parses one entry of ``sockops_relays``."""
    if not isinstance(entry, Mapping) or set(entry) != KEYS:
        invalid("a relay as exactly from and to", repr(entry), EXAMPLE)
    return Relay(parse_address(entry["from"]), parse_address(entry["to"]))


def parse_address(text: Json) -> Address:
    """Parses ``127.0.0.1:1234`` or ``[::1]:1234``."""
    if not isinstance(text, str):
        invalid("an address with a port, as text", repr(text), EXAMPLE)
    host, separator, port = text.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit() and len(port) <= MOST_PORT_DIGITS):
        invalid("an address with a port", repr(text), EXAMPLE)
    if not 1 <= int(port) <= LARGEST_PORT:
        invalid(f"a port from 1 to {LARGEST_PORT}", repr(text), "correct it")
    return Address(parse_host(host, text), int(port))


def parse_host(host: str, text: str) -> bytes:
    """Parses an IPv4 address, or an IPv6 address in brackets, that one server can have."""
    # Costs a run without relays nothing.
    import socket

    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed:
            packed = socket.inet_pton(socket.AF_INET6, host[1:-1])
        else:
            packed = IPV4_MAPPED_PREFIX + socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        invalid("an IPv4 address, or an IPv6 address in brackets", repr(text), EXAMPLE)
    if not is_single_host(packed):
        invalid(
            "the address that clients connect to",
            f"{text!r}, which is no single host's",
            "name the address, not the wildcard that the server listens on",
        )
    return packed


def is_single_host(packed: bytes) -> bool:
    """False for the unspecified, multicast and reserved addresses."""
    if packed.startswith(IPV4_MAPPED_PREFIX):
        first = packed[len(IPV4_MAPPED_PREFIX)]
        return 0 < first < IPV4_MULTICAST_AND_RESERVED
    return any(packed) and packed[0] != IPV6_MULTICAST


def check_each_server_once(relays: tuple[Relay, ...]) -> None:
    """Raises InvalidInput when a server is an end of two relays, or both ends of one."""
    seen: set[Address] = set()
    for address in (address for relay in relays for address in relay.addresses):
        if address in seen:
            invalid("each server in one relay, on one side", f"{address} twice", "give it another port")
        seen.add(address)
