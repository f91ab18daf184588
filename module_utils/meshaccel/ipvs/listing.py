# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""/proc/net/ip_vs: every service with its servers in one read (net/netfilter/ipvs/ip_vs_ctl.c).

It does not show scheduler flags, persistence engines, thresholds and what a tunnel
is made of. Of a service of a firewall mark it does not show the family either.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from .interface import LISTED_FORWARDINGS
from .model import AddressKey, RealServer

#: A version, and the names of the columns in two lines.
HEADING_LINES = 3
MARK = "FWM"
SERVER_SIGN = "->"


class Listed(NamedTuple):
    """A server with its connections: active ones are established, for UDP all are inactive."""

    server: RealServer
    active: int
    inactive: int


Servers = dict[AddressKey, list[Listed]]


def parse(listing: str) -> Servers:
    """Returns the servers of every service that has an address; services of firewall marks are left out."""
    services: Servers = {}
    skipped: list[Listed] = []
    servers = skipped
    for line in listing.splitlines()[HEADING_LINES:]:
        words = line.split()
        if words[0] == SERVER_SIGN:
            servers.append(parse_server(words))
        elif words[0] == MARK:
            servers = skipped
        else:
            # Shown twice when services before it came meanwhile.
            servers = services[AddressKey(words[0].lower(), *parse_end(words[1]))] = []
    return services


def parse_server(words: list[str]) -> Listed:
    """Returns what a server's line says."""
    address, port = parse_end(words[1])
    forwarding = LISTED_FORWARDINGS[words[2]]
    return Listed(RealServer(address, port, forwarding, int(words[3])), int(words[4]), int(words[5]))


def parse_end(end: str) -> tuple[str, int]:
    """Returns address and port of ``0A000001:0050`` or ``[fd00:...:0001]:0050``."""
    if end[0] == "[":
        address, _, port = end[1:].rpartition("]:")
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)), int(port, 16)
    return socket.inet_ntoa(bytes.fromhex(end[:8])), int(end[9:], 16)


def read(path: str) -> Servers:
    """Reads and parses the listing."""
    with open(path, encoding="ascii") as stream:
        return parse(stream.read())
