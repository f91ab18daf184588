# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a service's flows are in BPF or conntrack's, how its clients are masqueraded, and by what."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping

from ...checks import invalid, is_number
from ...errors import InvalidInput
from ...ipvs.model import AddressKey, RealServer, VirtualService
from ...model import Json
from ...system.route_netlink import Route
from .desired import Desired, Follow
from .layout import PROTOCOL_NUMBERS
from .service import IpvsBpf
from .state import Source
from .status import Found, find

#: 10.96.0.10:53, [fd00::10]:53/udp
WORDS = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:/\[\]]+)):(?P<port>[^/]+)(?:/(?P<protocol>[a-z]+))?")


def parse_service(words: str) -> AddressKey:
    """Parses ADDRESS:PORT, with /udp for a service of UDP; raises InvalidInput."""
    parsed = WORDS.fullmatch(words)
    protocol = (parsed["protocol"] or "tcp") if parsed else ""
    if not parsed or protocol not in PROTOCOL_NUMBERS or not is_number(parsed["port"]):
        invalid("a service as ADDRESS:PORT", repr(words), "for example 10.96.0.10:80 or [fd00::10]:53/udp")
    try:
        address = str(ipaddress.ip_address(parsed["six"] or parsed["four"]))
    except ValueError:
        invalid("the address of a service", repr(words), "names are not looked up")
    return AddressKey(protocol, address, int(parsed["port"]))


def explain(node: IpvsBpf, words: str) -> dict[str, Json]:
    """Returns the explanation of a service, as plain data.

    Raises InvalidInput when neither IPVS nor ipvs_bpf knows the service, or no wish is kept.
    """
    key, desired = parse_service(words), node.kept_wish()
    found = find(node)
    if found.resolved is None:
        raise InvalidInput(
            wanted=f"to explain {key}", found=found.trouble, remedy="mend that; see `meshaccel status`"
        )
    loaded = found.observed.loaded
    taken = loaded.services.get(key) if loaded is not None else None
    services = node.readers.services()
    service = next((each for each in services if each.key == key), None)
    if service is None and taken is None:
        raise InvalidInput(
            wanted=f"the service {key} in IPVS",
            found=f"none of its {len(services)} services",
            remedy="see `ipvsadm -Ln`",
        )
    return {
        "service": str(key),
        "in_bpf": taken is not None and loaded is not None and loaded.mode.value == "on",
        "why": why(key, desired, found),
        "masquerade": taken.value if taken is not None else None,
        "masquerade_by": source_of_decision(key, desired),
        "local_networks": sorted(map(str, found.resolved.local_networks)),
        "sessions": sessions_of(key, found),
        "backends": [] if service is None else backends(service, found),
    }


def why(key: AddressKey, desired: Desired, found: Found) -> str:
    """Returns one sentence on which way new flows of a service go."""
    resolved, loaded = found.resolved, found.observed.loaded
    if not desired.bpf:
        return "ipvs_bpf_mode is native"
    if loaded is None or resolved is None:
        return "ipvs_bpf is not loaded: run meshaccel restore"
    if str(key) in resolved.native:
        return resolved.native[str(key)]
    if loaded.mode.value != "on":
        held = found.observed.hold.mode
        by = f"held {held.value} by an operator" if held else f"in mode {loaded.mode.value}"
        return f"ipvs_bpf is {by}"
    if key not in loaded.services:
        return "it is new: the follow daemon, or meshaccel restore, takes it"
    return "all its backends are reached by devices with our programs"


def source_of_decision(key: AddressKey, desired: Desired) -> str:
    """Returns what says how the service's clients are masqueraded."""
    if any(AddressKey(*wish.key) == key for wish in desired.services):
        return "ipvs_bpf_services"
    if desired.follow is Follow.KUBE_PROXY:
        return "kube-proxy's rules and sets"
    return "ipvs_bpf_masquerade"


def sessions_of(key: AddressKey, found: Found) -> dict[str, int]:
    """Returns how many sessions of a service are alive, and how many of them are masqueraded."""
    alive = [session for session in found.alive if session.service == key]
    return {"alive": len(alive), "masqueraded": sum(session.masqueraded for session in alive)}


def backends(service: VirtualService, found: Found) -> list[dict[str, Json]]:
    """Returns each real server with its device, what replaces clients' addresses there, and its sessions."""
    counted = Counter(session.backend for session in found.alive if session.service == service.key)
    names = {link.index: link.name for link in found.observed.surroundings.links}
    return [
        {
            "backend": str(server),
            **way(server, found, names),
            "sessions": counted[server.key],
        }
        for server in service.servers
    ]


def way(server: RealServer, found: Found, names: Mapping[int, str]) -> dict[str, Json]:
    """Returns by which device, and with which source, packets go to a real server."""
    route: Route | None = found.observed.surroundings.routes.get(server.address)
    if route is None or found.resolved is None:
        return {"device": None, "source": None}
    source: Source | None = found.resolved.sources.get(route.device_index)
    address = source.address(6 if ":" in server.address else 4) if source else None
    return {
        "device": names.get(route.device_index),
        "source": f"{address} ports {source.ports}" if source and address else None,
    }


def lines(explained: Mapping[str, Json]) -> list[str]:
    """Returns an explanation for a reader."""
    where = "in BPF" if explained["in_bpf"] else "native"
    found = [f"{explained['service']}  {where}: {explained['why']}"]
    if explained["masquerade"]:
        found.append(f"  masquerade  {explained['masquerade']}, by {explained['masquerade_by']}")
    if explained["masquerade"] == "remote":
        found.append(f"  local networks  {', '.join(explained['local_networks']) or 'none'}")
    counts = explained["sessions"]
    found.append(f"  sessions  {counts['alive']}, {counts['masqueraded']} masqueraded")
    for backend in explained["backends"]:
        parts = [f"  backend {backend['backend']}", f"by {backend['device'] or 'no route'}"]
        parts += [f"from {backend['source']}"] if backend["source"] else []
        found.append("  ".join([*parts, f"{backend['sessions']} sessions"]))
    return found
