# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Source ports that conntrack has given away, as flows that no session may take."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ...ports import PortRange
from ...system import conntrack
from .layout import PROTOCOL_NUMBERS, Point
from .sessions import Key, packed
from .state import Source


def taken(sources: Iterable[Source]) -> set[Key]:
    """Returns, of each flow of conntrack's whose replies come to these sources, the reply's key.

    Raises Unsupported when nothing shows conntrack's table.
    """
    ranges: dict[str, list[PortRange]] = {}
    for source in sources:
        for address in filter(None, (source.ipv4, source.ipv6)):
            ranges.setdefault(str(address), []).append(source.ports)
    return {
        reply_key(flow)
        for flow in conntrack.replies_to(ranges)
        if flow.protocol in PROTOCOL_NUMBERS and is_within(flow.reply, ranges)
    }


def is_within(reply: conntrack.Direction, ranges: dict[str, list[PortRange]]) -> bool:
    """True when a reply comes to a port that sessions may be given."""
    ports = ranges.get(str(ipaddress.ip_address(reply.destination)), ())
    return any(wanted.first <= reply.destination_port <= wanted.last for wanted in ports)


def reply_key(flow: conntrack.Flow) -> Key:
    """Returns the key under which the programs would look the reply up."""
    return Key(
        packed(ipaddress.ip_address(flow.reply.source)),
        packed(ipaddress.ip_address(flow.reply.destination)),
        flow.reply.source_port,
        flow.reply.destination_port,
        PROTOCOL_NUMBERS[flow.protocol],
        Point.INGRESS,
    )
