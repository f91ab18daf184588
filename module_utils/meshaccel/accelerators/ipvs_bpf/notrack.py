# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Our nftables table: what the programs have marked goes past conntrack, or no further.

At prerouting, before conntrack: a packet with one of our marks is not tracked.
Without nf_conntrack in the kernel that rule is left out, which would load it.

At postrouting: a request whose client is to be masqueraded is dropped when it
leaves by a device that is not ours, where no program would do it. A SYN is sent
again; a flow that is half translated never comes to be.

The table is replaced in one transaction; a change of devices alone leaves its
counters. Somebody who reloads the whole ruleset removes it, which is drift.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...engine import Handler
from ...model import Action, Json, Plan
from ...system import nft

FAMILY = "inet"
NAME = "meshaccel_ipvs_bpf"
DEVICES = "attached"
BYPASSED = "bypassed"
DROPPED = "dropped"
PREROUTING = "prerouting"
POSTROUTING = "postrouting"
KIND = "ipvs_bpf.nft_table"
#: What each chain is, as nft lists it; -300 is raw, 0 filter.
CHAINS = {
    PREROUTING: {"type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"},
    POSTROUTING: {"type": "filter", "hook": "postrouting", "prio": 0, "policy": "accept"},
}
#: A rule's comment says what the rule was made of, so that versions of nft need not print it alike.
COMMENT = re.compile(r"meshaccel low (0x[0-9a-f]+) high (0x[0-9a-f]+)")


@dataclass(frozen=True)
class Table:
    """The table: two bits of the packet mark, the indexes of our devices, whether conntrack is there."""

    mark_low: int
    mark_high: int
    devices: frozenset[int]
    conntrack: bool = True

    @property
    def comment(self) -> str:
        """What its rules are made of."""
        return f"meshaccel low {self.mark_low:#x} high {self.mark_high:#x}"

    @property
    def mask(self) -> int:
        """Both bits."""
        return self.mark_low | self.mark_high


@dataclass(frozen=True)
class Observed:
    """What is there. ``table`` is None when there is none, or one that somebody has altered.

    Counters are of packets, since the table was made.
    """

    present: bool = False
    table: Table | None = None
    bypassed: int = 0
    dropped: int = 0


def observe() -> Observed:
    """Reads the table; raises Unsupported when nft is not there, ToolFailed when it refuses."""
    found = nft.table(FAMILY, NAME)
    return Observed() if found is None else parse(found)


def make_plan(wished: Table | None, observed: Observed) -> Plan:
    """Makes the table what is wished, None: no table; empty when it is so already."""
    present = observed.table
    if wished == present and observed.present == (wished is not None):
        return ()
    undo = replacing(present) if present else removing()
    if wished is None:
        return (action(f"remove the nft table {NAME}", removing(), undo),)
    if present and same_rules(wished, present):
        words = f"nft table {NAME}: {len(wished.devices)} devices"
        return (action(words, changing_devices(wished.devices), changing_devices(present.devices)),)
    return (action(f"nft table {NAME}: marked packets go past conntrack", replacing(wished), undo),)


def action(summary: str, script: str, undo: str) -> Action:
    """Builds a step: one transaction of nft, and the one back."""
    back = Action(KIND, f"undo: {summary}", {"script": undo})
    return Action(KIND, summary, {"script": script}, (back,))


def handlers() -> dict[str, Handler]:
    """Returns the handler of these steps."""

    def carry_out(arguments: Mapping[str, Json]) -> None:
        nft.apply(arguments["script"])

    return {KIND: carry_out}


def same_rules(first: Table, second: Table) -> bool:
    """True when two tables differ in nothing but their devices."""
    return (first.comment, first.conntrack) == (second.comment, second.conntrack)


# ---- text for nft ----


def removing() -> str:
    """Returns the script that removes the table; there may be none."""
    return f"add table {FAMILY} {NAME}\ndelete table {FAMILY} {NAME}\n"


def changing_devices(devices: Iterable[int]) -> str:
    """Returns the script that makes these the devices."""
    elements = elements_of(devices)
    added = f"add element {FAMILY} {NAME} {DEVICES} {elements}\n" if elements else ""
    return f"flush set {FAMILY} {NAME} {DEVICES}\n{added}"


def replacing(table: Table) -> str:
    """Returns the script that makes the table, in the place of one that may be there."""
    comment = f'comment "{table.comment}"'
    elements = elements_of(table.devices)
    bypass = f"meta mark & {table.mask:#x} != 0 counter name {BYPASSED} notrack {comment}"
    drop = (
        f"meta mark & {table.mask:#x} == {table.mask:#x} meta oif != @{DEVICES} counter name {DROPPED} drop"
    )
    return f"""{removing()}table {FAMILY} {NAME} {{
    counter {BYPASSED} {{ }}
    counter {DROPPED} {{ }}
    set {DEVICES} {{ type iface_index; {f"elements = {elements};" if elements else ""} }}
    chain {PREROUTING} {{
        type filter hook prerouting priority -300; policy accept;
        {bypass if table.conntrack else ""}
    }}
    chain {POSTROUTING} {{
        type filter hook postrouting priority 0; policy accept;
        {drop} {comment}
    }}
}}
"""


def elements_of(devices: Iterable[int]) -> str:
    """Returns devices as a set's elements; nothing for none."""
    numbers = ", ".join(map(str, sorted(devices)))
    return f"{{ {numbers} }}" if numbers else ""


# ---- what nft lists ----


def parse(found: Iterable[Json]) -> Observed:
    """Parses what nft lists of the table."""
    objects = [(kind, value) for part in found for kind, value in part.items()]
    packets = {value["name"]: value["packets"] for kind, value in objects if kind == "counter"}
    chains = {value["name"]: value for kind, value in objects if kind == "chain"}
    devices = [value for kind, value in objects if kind == "set" and value["name"] == DEVICES]
    rules = [value for kind, value in objects if kind == "rule"]
    table = parse_rules(rules, devices_of(devices)) if devices and chains_are_ours(chains) else None
    return Observed(True, table, packets.get(BYPASSED, 0), packets.get(DROPPED, 0))


def chains_are_ours(chains: Mapping[str, Json]) -> bool:
    """True when there are our two chains, at their hooks, and no other."""
    found = {name: {key: chain.get(key) for key in CHAINS[PREROUTING]} for name, chain in chains.items()}
    return found == CHAINS


def parse_rules(rules: Sequence[Json], devices: frozenset[int]) -> Table | None:
    """Returns the table that has these rules; None when they are not ours."""
    by_chain = {rule["chain"]: rule for rule in rules}
    comments = {rule.get("comment", "") for rule in rules}
    parsed = COMMENT.fullmatch(comments.pop()) if len(comments) == 1 else None
    if parsed is None:
        return None
    table = Table(int(parsed[1], 16), int(parsed[2], 16), devices, PREROUTING in by_chain)
    wanted: dict[str, tuple[str, ...]] = {POSTROUTING: (f"@{DEVICES}", DROPPED, "drop")}
    if table.conntrack:
        wanted[PREROUTING] = (BYPASSED, "notrack")
    in_place = by_chain.keys() == wanted.keys() and len(by_chain) == len(rules)
    return table if in_place and all(says(by_chain[name], table, wanted[name]) for name in wanted) else None


def says(rule: Json, table: Table, words: Iterable[str]) -> bool:
    """True when a rule asks for our marks and has these words."""
    found = set(leaves(rule["expr"]))
    return table.mask in found and found.issuperset(words)


def leaves(value: Json) -> Iterable[Json]:
    """Yields the keys, texts and numbers of a JSON value."""
    if isinstance(value, Mapping):
        yield from value
        value = value.values()
    elif not isinstance(value, list):
        yield value
        return
    for part in value:
        yield from leaves(part)


def devices_of(sets: Iterable[Json]) -> frozenset[int]:
    """Returns the indexes of a set's devices, which nft lists by name while they exist."""
    return frozenset(index_of(element) for found in sets for element in found.get("elem", ()))


def index_of(element: Json) -> int:
    """Returns a device's index. nft prints the number of one that is gone; 0 is no device's."""
    try:
        return socket.if_nametoindex(str(element))
    except OSError:
        return int(element) if str(element).isdecimal() else 0
