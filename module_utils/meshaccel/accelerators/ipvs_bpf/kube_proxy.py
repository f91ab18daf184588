# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy has written in IPVS mode: its ipsets and its rules of the nat table, read and parsed.

The formats are those of ipset(8), ``ipset save``, and iptables-save(8).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import MeshaccelError, Unsupported
from ...system import tools

SERVICES_CHAIN = "KUBE-SERVICES"
#: kube-proxy's sets begin so; KUBE-6- are those of IPv6.
SET_PREFIX = "KUBE-"
#: kube-proxy brings its own iptables, whose rules only programs of the same kind show.
SAVERS = {
    4: ("iptables-save", "iptables-nft-save", "iptables-legacy-save"),
    6: ("ip6tables-save", "ip6tables-nft-save", "ip6tables-legacy-save"),
}


@dataclass(frozen=True)
class Option:
    """One option of a rule with its words; ``negated``: an exclamation mark stands before it."""

    name: str
    words: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """A rule of iptables: what it asks for, and its target; empty: it has none."""

    options: tuple[Option, ...]
    target: str


@dataclass(frozen=True)
class Set:
    """An ipset: its type, such as ``hash:ip,port``, and its entries as ``ipset save`` writes them."""

    kind: str
    entries: tuple[str, ...]


#: Chains of one family's nat table, by name.
Chains = Mapping[str, tuple[Rule, ...]]


@dataclass(frozen=True)
class State:
    """kube-proxy's sets, and the nat tables' chains by IP version."""

    sets: Mapping[str, Set] = field(default_factory=dict)
    chains: Mapping[int, Chains] = field(default_factory=dict)


def read() -> State:
    """Reads sets and rules.

    Raises Unsupported when a program is missing or kube-proxy has no rules for
    IPv4 nor IPv6, ToolFailed when a program fails.
    """
    chains = {version: read_chains(names) for version, names in SAVERS.items()}
    if not any(SERVICES_CHAIN in found for found in chains.values()):
        raise Unsupported(
            wanted=f"to follow kube-proxy, whose nat tables have the chain {SERVICES_CHAIN}",
            found="no such chain for IPv4 or IPv6",
            remedy="run again once kube-proxy runs in IPVS mode, or set ipvs_bpf_follow to none or all",
        )
    return State(parse_sets(tools.run(["ipset", "save"], package="ipset")), chains)


def read_chains(names: Iterable[str]) -> Chains:
    """Returns the nat table as the first of these programs that sees kube-proxy's chain shows it."""
    first, *others = names
    found = parse_chains(tools.run([first, "-t", "nat"], package="iptables"))
    for name in others:
        if SERVICES_CHAIN in found:
            break
        try:
            found = parse_chains(tools.run([name, "-t", "nat"], package="iptables"))
        except Unsupported:
            # Not every iptables comes in both kinds.
            continue
    return found


def parse_sets(text: str) -> dict[str, Set]:
    """Parses ``ipset save``; sets of others are left out."""
    kinds: dict[str, str] = {}
    entries: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or not words[1].startswith(SET_PREFIX):
            continue
        command, name, value = words[:3]
        if command == "create":
            kinds[name] = value
        elif command == "add":
            entries.setdefault(name, []).append(value)
    return {name: Set(kind, tuple(entries.get(name, ()))) for name, kind in kinds.items()}


def parse_chains(text: str) -> dict[str, tuple[Rule, ...]]:
    """Parses one table of iptables-save; raises MeshaccelError for a line that is none of it."""
    chains: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if not line.startswith((":", "-A ")):
            continue
        try:
            first, *words = shlex.split(line.removeprefix("-A "))
        except ValueError as error:
            raise MeshaccelError(
                wanted="a rule as iptables-save writes it",
                found=f"{line!r} ({error})",
                remedy="compare with iptables-save -t nat",
            ) from error
        rules = chains.setdefault(first.removeprefix(":"), [])
        if line.startswith("-A "):
            rules.append(parse_rule(words))
    return {name: tuple(rules) for name, rules in chains.items()}


def parse_rule(words: Iterable[str]) -> Rule:
    """Parses a rule's words."""
    options = tuple(parse_options(words))
    targets = [option.words[0] for option in options if option.name in ("-j", "-g") and option.words]
    return Rule(
        tuple(option for option in options if option.name not in ("-j", "-g")), targets[0] if targets else ""
    )


def parse_options(words: Iterable[str]) -> Iterator[Option]:
    """Yields the options that words make up: each begins with a dash, its words follow."""
    name = ""
    found: list[str] = []
    negated = negation = False
    for word in words:
        if word == "!":
            negation = True
        elif word.startswith("-") and len(word) > 1:
            if name:
                yield Option(name, tuple(found), negated)
            name, found, negated, negation = word, [], negation, False
        else:
            found.append(word)
    if name:
        yield Option(name, tuple(found), negated)
