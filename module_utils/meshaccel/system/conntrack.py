# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Connection tracking's table, read only: of the calling thread's network namespace.

The kernel shows it as a file where CONFIG_NF_CONNTRACK_PROCFS is set; elsewhere
conntrack(8) prints the same lines.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import Unsupported
from . import sysctl, tools

TABLE = "/proc/thread-self/net/nf_conntrack"
COUNT = "net.netfilter.nf_conntrack_count"
LIMIT = "net.netfilter.nf_conntrack_max"
FAMILIES = ("ipv4", "ipv6")
PACKAGE = "conntrack (Debian, Ubuntu) or conntrack-tools"


@dataclass(frozen=True)
class Direction:
    """Addresses and ports as a packet in one direction has them; ports 0: the protocol has none."""

    source: str
    destination: str
    source_port: int
    destination_port: int


@dataclass(frozen=True)
class Flow:
    """A tracked flow: its protocol in lower case, how it began, and how replies to it arrive."""

    protocol: str
    original: Direction
    reply: Direction


def present() -> bool:
    """True when the kernel tracks connections, or would once a rule asks for it."""
    return os.path.exists(sysctl.path_of(LIMIT))


def count() -> int:
    """Returns how many flows are tracked; 0 where the kernel does not track any."""
    return int(sysctl.read(COUNT) or 0)


def replies_to(addresses: Iterable[str]) -> tuple[Flow, ...]:
    """Returns the flows whose replies go to one of these addresses: what is masqueraded to it has its port.

    Raises Unsupported when neither the kernel nor conntrack(8) shows the table,
    ToolFailed when that fails.
    """
    wanted = frozenset(map(normal, addresses))
    if not wanted or not present():
        return ()
    return tuple(select(read_lines(), wanted))


def read_lines(path: str = TABLE) -> Iterator[str]:
    """Yields the table's lines."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            yield from stream
        return
    except FileNotFoundError:
        pass
    try:
        for family in FAMILIES:
            command = ["conntrack", "-L", "-f", family, "-o", "extended"]
            yield from tools.run(command, package=PACKAGE).splitlines()
    except Unsupported as error:
        raise Unsupported(
            wanted="to read connection tracking's table",
            found=f"a kernel without {TABLE}, and no conntrack(8)",
            remedy=f"install {PACKAGE} on the node",
        ) from error


def select(lines: Iterable[str], wanted: frozenset[str]) -> Iterator[Flow]:
    """Yields the flows of lines whose replies go to one of these addresses."""
    # Tables are large, and most lines are of others.
    words = tuple(f"dst={spelling} " for address in wanted for spelling in spellings(address))
    for line in lines:
        if any(word in line for word in words):
            flow = parse(line)
            if flow is not None and flow.reply.destination in wanted:
                yield flow


def parse(line: str) -> Flow | None:
    """Parses one line; None for what is no flow between two addresses."""
    fields = line.split()
    found: dict[str, list[str]] = {}
    for field in fields:
        key, separator, value = field.partition("=")
        if separator:
            found.setdefault(key, []).append(value)
    if len(found.get("src", ())) != 2 or len(found.get("dst", ())) != 2:
        return None
    ports = {key: found.get(key, ["0", "0"]) for key in ("sport", "dport")}
    original, reply = (
        Direction(
            normal(found["src"][index]),
            normal(found["dst"][index]),
            int(ports["sport"][index]),
            int(ports["dport"][index]),
        )
        for index in range(2)
    )
    return Flow(fields[2], original, reply)


def normal(address: str) -> str:
    """Returns an address in its usual spelling."""
    return str(ipaddress.ip_address(address))


def spellings(address: str) -> frozenset[str]:
    """Returns how an address is written: the kernel leaves no zero out of IPv6, conntrack(8) does."""
    return frozenset((address, ipaddress.ip_address(address).exploded))
