"""What the kernel has of services and their flows, by the programs of others: ipvsadm and conntrack."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.namespaces import NetworkNamespace

CONNECTION_FIELDS = 6
#: The addresses of a line of `conntrack -L`: those of the packets that began it, then those of the answers.
CONNTRACK_ADDRESS = re.compile(r"\b(?:src|dst)=(\S+)")


@dataclass(frozen=True)
class Connection:
    """A line of `ipvsadm -Lnc`; ends are written as `address:port`."""

    protocol: str
    expires: str
    state: str
    client: str
    virtual: str
    destination: str


def connections(director: NetworkNamespace) -> tuple[Connection, ...]:
    """Return IPVS's own connection table."""
    lines = director.run(["ipvsadm", "-Lnc"]).splitlines()[2:]
    return tuple(Connection(*line.split()[:CONNECTION_FIELDS]) for line in lines)


def tracked_flows(director: NetworkNamespace, addresses: Iterable[str]) -> list[str]:
    """Return the lines of the connection tracking table that have one of these addresses, either way."""
    wanted = set(addresses)
    listed = [director.run(["conntrack", "-L", "-f", family]) for family in ("ipv4", "ipv6")]
    lines = [line for text in listed for line in text.splitlines()]
    return [line for line in lines if wanted.intersection(CONNTRACK_ADDRESS.findall(line))]


def served(director: NetworkNamespace) -> Counter[str]:
    """Return how many of the connections there each real server has, by `address:port`.

    Not what `ipvsadm --stats` counts, which the kernel sums up every two seconds only.
    """
    return Counter(connection.destination for connection in connections(director))
