# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Our nftables table: what the programs have marked goes past conntrack.

One rule at prerouting, before conntrack: a packet with one of our marks is not
tracked. Without nf_conntrack in the kernel there is nothing to go past, and no
table, which would load it.

The table is replaced in one transaction. Somebody who reloads the whole ruleset
removes it, which is drift.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...engine import Handler
from ...model import Action, Json, Plan
from ...system import nft

FAMILY = "inet"
NAME = "meshaccel_ipvs_bpf"
CHAIN = "prerouting"
KIND = "ipvs_bpf.nft_table"
#: What the chain is, as nft lists it; -300 is raw.
HOOK = {"type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}
#: A rule's comment says what the rule was made of, so that versions of nft need not print it alike.
COMMENT = re.compile(r"meshaccel low (0x[0-9a-f]+) high (0x[0-9a-f]+)")


@dataclass(frozen=True)
class Table:
    """The table: two bits of the packet mark."""

    mark_low: int
    mark_high: int

    @property
    def comment(self) -> str:
        """What its rule is made of."""
        return f"meshaccel low {self.mark_low:#x} high {self.mark_high:#x}"

    @property
    def mask(self) -> int:
        """Both bits."""
        return self.mark_low | self.mark_high


@dataclass(frozen=True)
class Observed:
    """What is there. ``table`` is None when there is none, or one that somebody has altered.

    ``bypassed`` counts packets since the table was made.
    """

    present: bool = False
    table: Table | None = None
    bypassed: int = 0


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


# ---- text for nft ----


def removing() -> str:
    """Returns the script that removes the table; there may be none."""
    return f"add table {FAMILY} {NAME}\ndelete table {FAMILY} {NAME}\n"


def replacing(table: Table) -> str:
    """Returns the script that makes the table, in the place of one that may be there."""
    return f"""{removing()}table {FAMILY} {NAME} {{
    chain {CHAIN} {{
        type filter hook prerouting priority -300; policy accept;
        meta mark & {table.mask:#x} != 0 counter notrack comment "{table.comment}"
    }}
}}
"""


# ---- what nft lists ----


def parse(found: Iterable[Json]) -> Observed:
    """Parses what nft lists of the table."""
    objects = [(kind, value) for part in found for kind, value in part.items()]
    chains = [{key: value.get(key) for key in HOOK} for kind, value in objects if kind == "chain"]
    rules = [value for kind, value in objects if kind == "rule"]
    others = [kind for kind, _ in objects if kind not in ("metainfo", "table", "chain", "rule")]
    table = parse_rules(rules) if chains == [HOOK] and not others else None
    return Observed(True, table, packets_of(rules) if table else 0)


def parse_rules(rules: Sequence[Json]) -> Table | None:
    """Returns the table that has these rules; None when they are not ours."""
    if len(rules) != 1:
        return None
    parsed = COMMENT.fullmatch(rules[0].get("comment", ""))
    if parsed is None:
        return None
    table = Table(int(parsed[1], 16), int(parsed[2], 16))
    return table if {table.mask, "notrack"} <= set(leaves(rules[0]["expr"])) else None


def packets_of(rules: Sequence[Json]) -> int:
    """Returns how many packets the rule's counter has seen."""
    counters = [part["counter"] for rule in rules for part in rule["expr"] if "counter" in part]
    return sum(int(counter["packets"]) for counter in counters)


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
