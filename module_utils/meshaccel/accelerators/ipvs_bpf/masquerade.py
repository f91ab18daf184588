# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Whose client is masqueraded, by kube-proxy's own rules. Pure.

The rules are followed as the kernel would follow them for a packet to each
service, so that versions of kube-proxy need not write them alike: from
KUBE-SERVICES on, once for a client in each network that a rule names and once
for one in none. A packet that gets to KUBE-MARK-MASQ is masqueraded. The nat
table is not consulted for untracked packets: what its rules would drop stays
native.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...ipvs.model import AddressKey
from .kube_proxy import SERVICES_CHAIN, Chains, Set, State
from .layout import Masquerade
from .nat_rules import LOOPBACK_NETWORKS, MASQUERADE_CHAIN, Outcome, Packet, Verdict, outcomes

CLUSTER_SETS = ("KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP")
#: Sets of something else than services: addresses alone, clients beside their own endpoint, health checks.
OTHER_SETS = ("IPVS-IPS", "LOOP-BACK", "HEALTH-CHECK-NODE-PORT")


@dataclass(frozen=True)
class Overrides:
    """What the operator knows better; None, and no networks: as kube-proxy's rules say."""

    masquerade_all: bool | None = None
    local_networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decisions:
    """What becomes of each service: its masquerade, or the reason for which it stays native."""

    masquerade: Mapping[AddressKey, Masquerade]
    native: Mapping[AddressKey, str]
    local_networks: tuple[str, ...]
    #: The bit of the packet mark that kube-proxy masquerades by, and accepts in FORWARD.
    mark: int = 0


#: What the rules ask of a service: its protocol, and kube-proxy's sets that it is in.
Signature = tuple[str, frozenset[str]]


def decide(services: Iterable[AddressKey], state: State, overrides: Overrides = Overrides()) -> Decisions:
    """Decides for each service."""
    members = Members(state.sets)
    named = tuple(network for chains in state.chains.values() for network in networks_of(chains))
    found: dict[tuple[int, Signature], Masquerade | str] = {}
    masquerade: dict[AddressKey, Masquerade] = {}
    native: dict[AddressKey, str] = {}
    for service in services:
        version = 6 if ":" in service.address else 4
        signature = members.signature(service)
        if (version, signature) not in found:
            found[version, signature] = Kind(state, version, signature, overrides).decide()
        decision = found[version, signature]
        if isinstance(decision, Masquerade):
            masquerade[service] = decision
        else:
            native[service] = decision
    return Decisions(masquerade, native, overrides.local_networks or named, mark_of(state))


def networks_of(chains: Chains) -> tuple[str, ...]:
    """Returns the networks that kube-proxy's rules tell local clients by (--cluster-cidr)."""
    rules = (rule for rule in chains.get(SERVICES_CHAIN, ()) if rule.target == MASQUERADE_CHAIN)
    options = (option for rule in rules for option in rule.options)
    named = {option.words[0] for option in options if option.name == "-s" and option.words}
    return tuple(sorted(named - LOOPBACK_NETWORKS))


def mark_of(state: State) -> int:
    """Returns the bit that KUBE-MARK-MASQ sets (--iptables-masquerade-bit); 0 when no rule of it does."""
    rules = (rule for chains in state.chains.values() for rule in chains.get(MASQUERADE_CHAIN, ()))
    options = (option for rule in rules if rule.target == "MARK" for option in rule.options)
    words = (option.words[0] for option in options if option.name == "--set-xmark" and option.words)
    return next((int(word.partition("/")[0], 16) for word in words), 0)


class Members:
    """Which sets have a service in them."""

    def __init__(self, sets: Mapping[str, Set]) -> None:
        """Turns the sets around."""
        self._sets_of: dict[str, set[str]] = {}
        for name, found in sets.items():
            # hash:ip,port,ip and hash:ip,port,net have a client in the third place.
            parts = 2 if found.kind.startswith("hash:ip,port") else 1
            for entry in found.entries:
                self._sets_of.setdefault(",".join(entry.split(",")[:parts]), set()).add(name)

    def signature(self, service: AddressKey) -> Signature:
        """Returns the service's protocol and sets: by address and port, by port, by address."""
        keys = (f"{service.address},{service.protocol}:{service.port}", str(service.port), service.address)
        return service.protocol, frozenset(name for key in keys for name in self._sets_of.get(key, ()))


class Kind:
    """The services of one signature and IP version, which fare alike."""

    def __init__(self, state: State, version: int, signature: Signature, overrides: Overrides) -> None:
        """Binds a signature to the rules of its IP version."""
        self._chains = state.chains.get(version, {})
        self._kinds = {name: found.kind for name, found in state.sets.items()}
        self._protocol, self._members = signature
        self._overrides = overrides
        self._networks = networks_of(self._chains)

    def decide(self) -> Masquerade | str:
        """Returns whether clients are masqueraded, or why the services stay native."""
        if SERVICES_CHAIN not in self._chains:
            return f"kube-proxy has no chain {SERVICES_CHAIN} for its IP version"
        if not self._is_service():
            return "it is none of kube-proxy's services"
        inside = set().union(*(self._outcomes(network, local=True) for network in self._networks or (None,)))
        outside = self._outcomes(None, local=False)
        verdicts = {outcome.verdict for outcome in inside | outside}
        if Verdict.DROP in verdicts:
            return "kube-proxy's nat rules drop some of its clients (loadBalancerSourceRanges)"
        if Verdict.OTHER in verdicts:
            return "a rule of the nat table that is none of kube-proxy's takes its packets"
        return self._masquerade({each.masqueraded for each in inside}, {each.masqueraded for each in outside})

    def _outcomes(self, network: str | None, *, local: bool) -> set[Outcome]:
        """Returns what becomes of a client in that network."""
        told = local if self._overrides.local_networks else None
        return outcomes(self._chains, Packet(self._protocol, self._members, self._networks, network, told))

    def _masquerade(self, inside: set[bool], outside: set[bool]) -> Masquerade | str:
        """Puts together what becomes of local clients and of others."""
        if self._members.intersection(CLUSTER_SETS) and self._overrides.masquerade_all is not None:
            networks = self._overrides.local_networks or self._networks
            others = Masquerade.REMOTE if networks else Masquerade.NEVER
            return Masquerade.ALWAYS if self._overrides.masquerade_all else others
        if len(inside) + len(outside) > 2:
            return (
                "whether its clients are masqueraded depends on more than their address; "
                "ipvs_bpf_masquerade_all or ipvs_bpf_local_networks says it"
            )
        if inside == outside:
            return Masquerade.ALWAYS if True in inside else Masquerade.NEVER
        return Masquerade.REMOTE if True in outside else "kube-proxy masquerades local clients alone"

    def _is_service(self) -> bool:
        """True when kube-proxy keeps it in a set of services; sets of ports are of one protocol."""
        return any(
            self._kinds[name] != "bitmap:port" or name.endswith(f"-{self._protocol.upper()}")
            for name in self._members
            if not name.endswith(OTHER_SETS)
        )
