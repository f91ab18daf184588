# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The way of a packet to a service through kube-proxy's nat chains, as the kernel would take it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional

from .kube_proxy import SERVICES_CHAIN, Chains, Option, Rule

MASQUERADE_CHAIN = "KUBE-MARK-MASQ"
#: Modules of iptables that ask for nothing by themselves: their options do.
SILENT_MODULES = frozenset(
    ("tcp", "udp", "sctp", "comment", "set", "addrtype", "mark", "physdev", "conntrack", "multiport")
)
DEEPEST = 32
#: A client that comes by a device has none of these addresses.
LOOPBACK_NETWORKS = frozenset({"127.0.0.0/8", "::1/128"})
#: What is true or false of a packet, or differs (None): both ways are followed.
Truth = Optional[bool]


class Verdict(enum.Enum):
    """How a packet leaves a chain; END: it goes on behind it."""

    END = "end"
    ACCEPT = "accept"
    DROP = "drop"
    #: By a target that is none of kube-proxy's.
    OTHER = "other"


VERDICTS = {
    # A chain of kube-proxy's own: what it marks is dropped later.
    "KUBE-MARK-DROP": Verdict.DROP,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "ACCEPT": Verdict.ACCEPT,
    # They leave a packet's way as it is. The empty one: a rule without a target.
    **dict.fromkeys(("", "RETURN", "MARK", "CONNMARK", "LOG", "NFLOG", "TRACE"), Verdict.END),
}


class Outcome(NamedTuple):
    """How a packet left, and whether it was marked to be masqueraded."""

    verdict: Verdict
    masqueraded: bool


@dataclass(frozen=True)
class Packet:
    """A packet from outside to a service.

    ``sets`` are those that have its service. ``network`` is the one of
    ``networks`` with its client, None: it is in none of them. ``local`` says
    whether the client is a local one: None where only the networks tell.
    """

    protocol: str
    sets: frozenset[str]
    networks: tuple[str, ...] = ()
    network: str | None = None
    local: Truth = None


def outcomes(chains: Chains, packet: Packet) -> set[Outcome]:
    """Returns what may become of a packet."""
    return follow(chains, packet, SERVICES_CHAIN, masqueraded=False)


def follow(chains: Chains, packet: Packet, chain: str, *, masqueraded: bool, depth: int = 0) -> set[Outcome]:
    """Returns how a packet may leave a chain."""
    walking = {masqueraded}
    left: set[Outcome] = set()
    for rule in chains.get(chain, ()):
        holds = matches(packet, rule)
        if holds is False:
            continue
        reached = {
            outcome for flag in walking for outcome in follow_target(chains, packet, rule.target, flag, depth)
        }
        ended = {
            outcome for outcome in reached if outcome.verdict is not Verdict.END or rule.target == "RETURN"
        }
        left |= ended
        walking = {outcome.masqueraded for outcome in reached - ended} | (set() if holds else walking)
    return left | {Outcome(Verdict.END, flag) for flag in walking}


def follow_target(chains: Chains, packet: Packet, target: str, masqueraded: bool, depth: int) -> set[Outcome]:
    """Returns how a packet leaves a rule's target; END: it goes on behind the rule."""
    if target == MASQUERADE_CHAIN:
        return {Outcome(Verdict.END, True)}
    verdict = VERDICTS.get(target, Verdict.OTHER)
    if verdict is Verdict.OTHER and target in chains and depth < DEEPEST:
        return follow(chains, packet, target, masqueraded=masqueraded, depth=depth + 1)
    return {Outcome(verdict, masqueraded)}


def matches(packet: Packet, rule: Rule) -> Truth:
    """Returns whether a rule takes a packet."""
    truths = [is_true(packet, option) for option in rule.options]
    if False in truths:
        return False
    return None if None in truths else True


def is_true(packet: Packet, option: Option) -> Truth:
    """Returns whether what an option asks for is so."""
    found = is_named(packet, option.name, option.words)
    return found if found is None else found is not option.negated


def is_named(packet: Packet, name: str, words: tuple[str, ...]) -> Truth:
    """Returns whether what an option names is so, regardless of its negation."""
    if name == "--comment" or (name == "-m" and SILENT_MODULES.issuperset(words)):
        return True
    if name == "--match-set" and len(words) == 2:
        return is_in_set(packet, *words)
    if name == "-s":
        return is_from(packet, words)
    if name == "-p":
        return words == (packet.protocol,)
    # Services' addresses are the node's own; the clients we see come from outside.
    if words == ("LOCAL",) and name in ("--dst-type", "--src-type"):
        return name == "--dst-type"
    # kube-proxy tells local clients by network, bridge or the beginning of a name (--detect-local-mode).
    return packet.local if name == "-i" else None


def is_from(packet: Packet, words: tuple[str, ...]) -> Truth:
    """Returns whether a packet's client is in a network; not known of one that tells no local clients."""
    if LOOPBACK_NETWORKS.issuperset(words):
        return False
    if not set(words).issubset(packet.networks):
        return None
    return words == (packet.network,) if packet.local is None else packet.local


def is_in_set(packet: Packet, name: str, directions: str) -> Truth:
    """Returns whether a packet matches a set, as far as that is told by its service."""
    if name not in packet.sets:
        return False
    if "src" not in directions:
        return True
    # A client's address is none of the node's own services.
    return False if directions.startswith("src") else None
