# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""nftables sets whose elements are denied, read anew at each run (libnftables-json(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ....checks import invalid
from ....errors import InvalidInput
from ....model import Json
from ....ports import LARGEST_PORT, PortRange
from ....system import nft
from ....system.tools import ToolFailed
from .networks import EVERY_PORT, DeniedNetwork, canonical

KEYS = frozenset({"family", "table", "set"})
FAMILIES = ("ip", "ip6", "inet")
#: nft joins its arguments and parses the text, so nothing else may get there.
NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9/._-]*")
ADDRESS_TYPES = ("ipv4_addr", "ipv6_addr")
PORT_TYPE = "inet_service"
TYPES: tuple[Json, ...] = (*ADDRESS_TYPES, *([address, PORT_TYPE] for address in ADDRESS_TYPES))
EXAMPLE = "for example {family: inet, table: filter, set: blocked}"


@dataclass(frozen=True, order=True)
class NftSet:
    """A set of the host's network namespace."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"

    def as_dict(self) -> dict[str, Json]:
        """Returns the set in the words of ``sockops_denied_nft_sets``."""
        return {"family": self.family, "table": self.table, "set": self.name}


def parse_nft_set(entry: Json) -> NftSet:
    """Parses one entry of ``sockops_denied_nft_sets``; raises InvalidInput."""
    if not isinstance(entry, Mapping) or set(entry) != KEYS:
        invalid("a set as family, table and set", repr(entry), EXAMPLE)
    if entry["family"] not in FAMILIES:
        invalid(f"a family of {', '.join(FAMILIES)}", repr(entry["family"]), EXAMPLE)
    for key in ("table", "set"):
        if not isinstance(entry[key], str) or not NAME.fullmatch(entry[key]):
            invalid(f"the name of a {key}", repr(entry[key]), EXAMPLE)
    return NftSet(entry["family"], entry["table"], entry["set"])


def read(wanted: NftSet) -> tuple[DeniedNetwork, ...]:
    """Reads a set's elements.

    Raises InvalidInput when there is no such set, or it has something else in it
    than addresses and ports; Unsupported when nft is not there.
    """
    try:
        listing = nft.listing("set", wanted.family, wanted.table, wanted.name)
    except ToolFailed as error:
        invalid(
            f"the nft set {wanted}",
            error.found,
            "make it first, or take it out of sockops_denied_nft_sets; until then what was denied stays so",
        )
    return parse_listing(listing, wanted)


def parse_listing(listing: list[Json], wanted: NftSet) -> tuple[DeniedNetwork, ...]:
    """Parses what nft says of a set; raises InvalidInput."""
    found = next(part["set"] for part in listing if "set" in part)
    if found["type"] not in TYPES:
        invalid(
            f"the nft set {wanted} with the type of an address, or of an address and a port",
            f"the type {found['type']}",
            "name a set of ipv4_addr, ipv6_addr, or one of them . inet_service",
        )
    try:
        return tuple(rule for element in found.get("elem", ()) for rule in parse_element(element))
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise InvalidInput(
            wanted=f"addresses, prefixes, intervals and ports in the nft set {wanted}",
            found=f"something else ({error})",
            remedy="take it out of the set, or the set out of sockops_denied_nft_sets",
        ) from error


def parse_element(element: Json) -> Iterator[DeniedNetwork]:
    """Yields an element's networks."""
    if isinstance(element, Mapping) and "elem" in element:
        # With a time-out, a comment or a counter of its own.
        element = element["elem"]["val"]
    if isinstance(element, Mapping) and "concat" in element:
        address, port = element["concat"]
        ports = (*EVERY_PORT, parse_port(port))
    else:
        address, ports = element, EVERY_PORT
    for network in parse_address(address):
        yield DeniedNetwork(network, ports)


def parse_address(address: Json) -> list[str]:
    """Returns the networks of an address, a prefix or an interval."""
    import ipaddress

    if isinstance(address, str):
        return [canonical(address)]
    if "prefix" in address:
        return [canonical(f"{address['prefix']['addr']}/{address['prefix']['len']}")]
    first, last = (ipaddress.ip_address(end) for end in address["range"])
    return [canonical(str(network)) for network in ipaddress.summarize_address_range(first, last)]


def parse_port(port: Json) -> PortRange:
    """Returns the ports of a number or an interval."""
    first, last = port["range"] if isinstance(port, Mapping) else (port, port)
    ports = PortRange(int(first), int(last))
    if not 0 <= ports.first <= ports.last <= LARGEST_PORT:
        raise ValueError(f"port {ports}")
    return ports
