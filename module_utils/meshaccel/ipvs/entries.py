# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The entries of ``ipvs_services``: parsed with every mistake told at once, and written the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable, TypeVar

from ..checks import invalid
from ..errors import InvalidInput
from ..model import Json
from . import interface, values
from .garbage_collection import without_garbage_collection
from .model import AddressKey, MarkKey, RealServer, ServiceKey, VirtualService

LIST = "ipvs_services"
DEFAULT_SCHEDULER = "wlc"
EXAMPLE = "for example {address: 10.96.0.10, port: 80, servers: [10.0.0.1:8080]}"
ADDRESS_KEYS = ("protocol", "address", "port")
MARK_KEYS = ("firewall_mark", "family")
PERSISTENCE_KEYS = ("persistence_timeout", "persistence_netmask", "persistence_engine")
SERVICE_KEYS = frozenset({*ADDRESS_KEYS, *MARK_KEYS, *PERSISTENCE_KEYS, "scheduler", "flags", "servers"})
TUNNEL_KEYS = ("tunnel_type", "tunnel_port", "tunnel_checksum")
SERVER_KEYS = frozenset(
    {"address", "port", "forwarding", "weight", "upper_threshold", "lower_threshold", *TUNNEL_KEYS}
)
#: The checksums that each tunnel can have, the first by default.
CHECKSUMS = {"ipip": ("none",), "gue": ("none", "full", "remote"), "gre": ("none", "full")}

#: What follows address and port of a server of which nothing else is said.
PLAIN_SERVER = RealServer("", 0)[2:]

Parsed = TypeVar("Parsed", VirtualService, RealServer)


class Mistakes(InvalidInput):
    """More than one thing is wrong; each is a line of ``found``."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        """Takes one sentence for each mistake."""
        super().__init__(
            wanted=f"entries of {LIST} without a mistake",
            found=f"{len(mistakes)} with one, so nothing was changed:\n" + "\n".join(mistakes) + "\n",
            remedy="correct each",
        )
        self.mistakes = tuple(mistakes)


@without_garbage_collection()
def parse_services(entries: Sequence[Json]) -> tuple[VirtualService, ...]:
    """Parses the list; raises Mistakes with all that is wrong."""
    return tuple(parse_each(entries, parse_service, LIST))


def parse_each(entries: Sequence[Json], parse: Callable[[Json], Parsed], where: str) -> list[Parsed]:
    """Parses entries of which each has a key of its own; raises Mistakes with all that is wrong."""
    parsed: list[Parsed] = []
    mistakes: list[str] = []
    positions: dict[tuple[Json, ...], int] = {}
    for position, entry in enumerate(entries):
        try:
            found = parse(entry)
        except Mistakes as error:
            mistakes += [f"{where}[{position}].{mistake}" for mistake in error.mistakes]
            continue
        except InvalidInput as error:
            mistakes.append(f"{where}[{position}]: {error}")
            continue
        first = positions.setdefault(found.key, position)
        if first != position:
            mistakes.append(
                f"{where}[{position}]: wanted each once; found {found}, as in {where}[{first}]; merge the two"
            )
        parsed.append(found)
    if mistakes:
        raise Mistakes(mistakes)
    return parsed


def parse_service(entry: Json) -> VirtualService:
    """Parses one service; raises InvalidInput, or Mistakes of its servers."""
    if not isinstance(entry, dict):
        invalid("a service as a dictionary", repr(entry), EXAMPLE)
    values.require_known(entry, SERVICE_KEYS)
    bare = with_persistence(parse_identity(entry), entry)
    flags = entry.get("flags")
    if flags:
        bare = bare._replace(flags=values.flags(flags, bare.scheduler))
        require_datagrams(bare)
    if bare.port == 0 and bare.persistence_timeout is None:
        invalid("a persistence_timeout with port 0", "none", "port 0 is every port, of clients that persist")
    servers = entry.get("servers")
    if not servers:
        return bare
    if not isinstance(servers, list):
        invalid("servers as a list", repr(servers), EXAMPLE)
    parsed = parse_each(servers, lambda server: parse_server(server, bare), "servers")
    # As the table is read, so that one comparison tells whether a service is as wished.
    return bare._replace(servers=tuple(sorted(parsed)))


def parse_identity(entry: Mapping[str, Json]) -> VirtualService:
    """Parses what the kernel knows a service by, and its scheduler."""
    scheduler = entry.get("scheduler")
    scheduler = DEFAULT_SCHEDULER if scheduler is None else values.name(scheduler, "scheduler")
    mark = entry.get("firewall_mark")
    if mark is None:
        if "family" in entry:
            invalid("a family with a firewall_mark alone", repr(entry["family"]), "the address has one")
        protocol = entry.get("protocol")
        if protocol != "tcp":
            protocol = (
                "tcp" if protocol is None else values.one_of(protocol, "a protocol", interface.PROTOCOLS)
            )
        family, address = values.address(entry.get("address"), "address of a service")
        port = values.whole(entry.get("port"), "a port", 0, values.LARGEST_PORT)
        return VirtualService(protocol, address, port, None, family, scheduler)
    both = [key for key in ADDRESS_KEYS if entry.get(key) is not None]
    if both:
        invalid("a firewall_mark or an address", f"a firewall_mark and {', '.join(both)}", "keep one of them")
    mark = values.whole(mark, "a firewall_mark", 1, values.LARGEST_MARK)
    family = values.one_of(entry.get("family") or "ipv4", "a family", interface.FAMILIES)
    return VirtualService(None, None, None, mark, family, scheduler)


def with_persistence(service: VirtualService, entry: Mapping[str, Json]) -> VirtualService:
    """Adds what makes a client's connections go to one server."""
    timeout, mask, engine = (entry.get(key) for key in PERSISTENCE_KEYS)
    if timeout is None:
        if mask is not None or engine is not None:
            invalid("a persistence_timeout with what else is said of persistence", "none", "add it")
        return service
    if engine is not None:
        engine = values.name(engine, "persistence engine")
        if engine == "sip" and service.protocol not in ("udp", None):
            invalid("protocol udp for the persistence engine sip", service.protocol or "", "correct either")
    everyone = "255.255.255.255" if service.family == "ipv4" else "128"
    return service._replace(
        persistence_timeout=values.whole(timeout, "a persistence_timeout", 1, values.LARGEST_TIMEOUT),
        persistence_netmask=everyone if mask is None else values.netmask(mask, service.family),
        persistence_engine=engine,
    )


def require_datagrams(service: VirtualService) -> None:
    """Raises InvalidInput for the flag ops of a service that has connections; ipvsadm(8) does too."""
    if interface.ONE_PACKET_NAME in service.flags and service.protocol not in ("udp", None):
        invalid("protocol udp for the flag ops", str(service.protocol), "one packet is no connection of it")


def parse_server(entry: Json, service: VirtualService) -> RealServer:
    """Parses one server: a dictionary, or its address and port as text; raises InvalidInput."""
    if isinstance(entry, str):
        host, number = values.end(entry)
        entry = {"address": host} if number is None else {"address": host, "port": number}
    elif not isinstance(entry, dict):
        invalid("a server as text or a dictionary", repr(entry), "for example 10.0.0.1:8080")
    values.require_known(entry, SERVER_KEYS)
    family, address = values.address(entry.get("address"), "address of a server")
    port = values.whole(given(entry, "port", service.port or 0), "a port", 0, values.LARGEST_PORT)
    if len(entry) == 1 + ("port" in entry) and family == service.family:
        return RealServer(address, port)
    server = RealServer(
        address,
        port,
        values.one_of(entry.get("forwarding") or "masquerade", "forwarding", interface.FORWARDINGS),
        values.whole(given(entry, "weight", 1), "a weight", 0, values.LARGEST_WEIGHT),
        values.whole(given(entry, "upper_threshold", 0), "an upper_threshold", 0, values.LARGEST_THRESHOLD),
        values.whole(given(entry, "lower_threshold", 0), "a lower_threshold", 0, values.LARGEST_THRESHOLD),
    )
    require_thresholds(server)
    require_reachable(server, family, service)
    return with_tunnel(server, entry)


def given(entry: Mapping[str, Json], key: str, default: Json) -> Json:
    """Returns a key's value; absent or null means the default."""
    value = entry.get(key)
    return default if value is None else value


def require_thresholds(server: RealServer) -> None:
    """Raises InvalidInput for a lower threshold above the upper one, which the kernel refuses."""
    if server.lower_threshold > server.upper_threshold:
        invalid(
            "a lower_threshold up to the upper_threshold",
            f"{server.lower_threshold} above {server.upper_threshold}",
            "a server at its upper_threshold gets nothing new until it is below the lower one",
        )


def require_reachable(server: RealServer, family: str, service: VirtualService) -> None:
    """Raises InvalidInput for a server that the forwarding cannot bring the service's packets to."""
    if server.forwarding != "tunnel" and family != service.family:
        invalid(f"an {service.family} server", f"{server.address}", "only a tunnel leads to the other family")
    if server.forwarding != "masquerade" and service.port is not None and server.port != service.port:
        invalid(
            f"port {service.port}, which the packets keep with forwarding {server.forwarding}",
            str(server.port),
            "leave the server's port out",
        )


def with_tunnel(server: RealServer, entry: Mapping[str, Json]) -> RealServer:
    """Adds what a tunnel is made of."""
    kind, port, checksum = (entry.get(key) for key in TUNNEL_KEYS)
    if server.forwarding != "tunnel":
        if (kind, port, checksum) != (None, None, None):
            invalid("forwarding tunnel with what is said of a tunnel", server.forwarding, "correct either")
        return server
    kind = values.one_of(kind or "ipip", "a tunnel_type", interface.TUNNEL_TYPES)
    if kind == "gue":
        port = values.whole(port, "a tunnel_port with tunnel_type gue", 1, values.LARGEST_PORT)
    elif port is not None:
        invalid("a tunnel_port with tunnel_type gue alone", f"{port!r} with {kind}", "leave it out")
    checksum = values.one_of(checksum or "none", f"a tunnel_checksum with {kind}", CHECKSUMS[kind])
    return server._replace(tunnel_type=kind, tunnel_port=port or 0, tunnel_checksum=checksum)


def service_entry(service: VirtualService) -> dict[str, Json]:
    """Returns a service as an entry of the list, without what is default."""
    entry = key_entry(service.key)
    entry["scheduler"] = service.scheduler
    if service.flags:
        entry["flags"] = list(service.flags)
    if service.persistence_timeout is not None:
        entry.update((key, getattr(service, key)) for key in PERSISTENCE_KEYS if getattr(service, key))
    entry["servers"] = [server_entry(server) for server in service.servers]
    return entry


def key_entry(key: ServiceKey) -> dict[str, Json]:
    """Returns what the kernel knows a service by, as a part of its entry."""
    return dict(zip(key._fields, key))


def entry_key(entry: Mapping[str, Json]) -> ServiceKey:
    """Returns the key in an entry that key_entry() or service_entry() wrote; raises KeyError."""
    if "firewall_mark" in entry:
        return MarkKey(entry["family"], entry["firewall_mark"])
    return AddressKey(entry["protocol"], entry["address"], entry["port"])


def server_entry(server: RealServer) -> Json:
    """Returns a server as an entry, without what is default: text when that says all."""
    if server[2:] == PLAIN_SERVER:
        return f"{server}"
    entry = {"address": server.address, "port": server.port, "forwarding": server.forwarding}
    entry.update({key: getattr(server, key) for key in ("weight", "upper_threshold", "lower_threshold")})
    if server.forwarding == "tunnel":
        entry.update({key: getattr(server, key) for key in TUNNEL_KEYS if getattr(server, key)})
    return entry
