# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages that change the kernel's table, by pyroute2.

The library's own module for IPVS is not used. It came with 0.7.4, later than Debian 12's
0.7.2, and in 0.9.7 "update" deletes, a tunnel's port is swapped, the netmask of IPv6 is
an address, and what is not named is direct routing. Its sockets and its encoding of
attributes are what is used here; both are the same from 0.5.14 to 0.9.7.
"""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from ..system.generic_netlink import native
from . import interface
from .model import MarkKey, RealServer, ServiceKey, VirtualService

#: What a message says of a service or a server, by the names below.
Attributes = list[tuple[str, Any]]


class Service(nla):  # type: ignore[misc] # pyroute2 ships no types
    """A service: its identity alone, or all of it."""

    prefix = "SERVICE_"
    nla_map = (
        ("SERVICE_UNSPECIFIED", "none"),
        ("SERVICE_FAMILY", "uint16"),
        ("SERVICE_PROTOCOL", "uint16"),
        ("SERVICE_ADDRESS", "binary"),
        ("SERVICE_PORT", "be16"),
        ("SERVICE_FIREWALL_MARK", "uint32"),
        ("SERVICE_SCHEDULER", "asciiz"),
        ("SERVICE_FLAGS", "flags"),
        ("SERVICE_TIMEOUT", "uint32"),
        # An address for IPv4, for IPv6 a number of the machine's own byte order.
        ("SERVICE_NETMASK", "binary"),
        ("SERVICE_STATISTICS", "none"),
        ("SERVICE_ENGINE", "asciiz"),
    )

    class flags(nla):  # type: ignore[misc] # noqa: N801  pyroute2 looks it up by the name above
        """struct ip_vs_flags: the bits, and which of them are meant."""

        fields = (("flags", "I"), ("mask", "I"))


class Server(nla):  # type: ignore[misc] # as above
    """A server within a service."""

    prefix = "SERVER_"
    nla_map = (
        ("SERVER_UNSPECIFIED", "none"),
        ("SERVER_ADDRESS", "binary"),
        ("SERVER_PORT", "be16"),
        ("SERVER_FORWARDING", "uint32"),
        ("SERVER_WEIGHT", "uint32"),
        ("SERVER_UPPER_THRESHOLD", "uint32"),
        ("SERVER_LOWER_THRESHOLD", "uint32"),
        ("SERVER_ACTIVE_CONNECTIONS", "uint32"),
        ("SERVER_INACTIVE_CONNECTIONS", "uint32"),
        ("SERVER_PERSISTENT_CONNECTIONS", "uint32"),
        ("SERVER_STATISTICS", "none"),
        ("SERVER_FAMILY", "uint16"),
        ("SERVER_STATISTICS_64", "none"),
        ("SERVER_TUNNEL_TYPE", "uint8"),
        ("SERVER_TUNNEL_PORT", "be16"),
        ("SERVER_TUNNEL_FLAGS", "uint16"),
    )


class Message(genlmsg):  # type: ignore[misc] # as above
    """A command with the service, and the server, that it is about."""

    prefix = "IPVS_"
    nla_map = (("IPVS_UNSPECIFIED", "none"), ("IPVS_SERVICE", "Service"), ("IPVS_SERVER", "Server"))
    Service = Service
    Server = Server


class Kernel:
    """Changes the table, one message a call, each answered before the next.

    The methods raise OSError with the kernel's answer: FileExistsError and
    FileNotFoundError for a server, FileExistsError and ProcessLookupError for a service;
    FileNotFoundError of new_service() and set_service() is a scheduler or a persistence
    engine that the kernel does not have.
    """

    def __init__(self) -> None:
        """Opens the socket; raises OSError while the kernel has no IPVS."""
        self.sent = 0
        self._socket = GenericNetlinkSocket()
        try:
            self._socket.bind(interface.FAMILY, Message)
        except NetlinkError as error:
            self._socket.close()
            raise OSError(error.code, f"IPVS: {os.strerror(error.code)}") from error

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def new_service(self, service: VirtualService) -> None:
        """Makes a service without servers."""
        self._send(interface.NEW_SERVICE, str(service), whole_service(service))

    def set_service(self, service: VirtualService) -> None:
        """Edits a service in place; its servers and connections stay."""
        self._send(interface.SET_SERVICE, str(service), whole_service(service))

    def delete_service(self, key: ServiceKey) -> None:
        """Removes a service and its servers."""
        self._send(interface.DELETE_SERVICE, str(key), identity(key))

    def new_server(self, key: ServiceKey, server: RealServer) -> None:
        """Adds a server; one that left and still has connections gets them back."""
        self._send(interface.NEW_SERVER, f"{server} of {key}", identity(key), whole_server(server))

    def set_server(self, key: ServiceKey, server: RealServer) -> None:
        """Edits a server in place; its connections stay."""
        self._send(interface.SET_SERVER, f"{server} of {key}", identity(key), whole_server(server))

    def delete_server(self, key: ServiceKey, server: RealServer) -> None:
        """Removes a server; its connections go nowhere any more."""
        self._send(interface.DELETE_SERVER, f"{server} of {key}", identity(key), server_identity(server))

    def _send(
        self, command: int, subject: str, service: Attributes, server: Attributes | None = None
    ) -> None:
        message = Message()
        message["cmd"], message["version"] = command, interface.VERSION
        message["attrs"] = [("IPVS_SERVICE", {"attrs": service})]
        if server is not None:
            message["attrs"].append(("IPVS_SERVER", {"attrs": server}))
        self.sent += 1
        try:
            # The answer has to be taken, whether it comes as a tuple or, in newer versions, as a generator.
            list(
                self._socket.nlm_request(
                    message, msg_type=self._socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK
                )
            )
        except NetlinkError as error:
            raise OSError(error.code, f"{subject}: {os.strerror(error.code)}") from error


def identity(key: ServiceKey) -> Attributes:
    """Returns what names a service."""
    if isinstance(key, MarkKey):
        family = interface.FAMILIES[key.family]
        return [("SERVICE_FAMILY", int(family)), ("SERVICE_FIREWALL_MARK", key.firewall_mark)]
    family, packed = packed_address(key.address)
    return [
        ("SERVICE_FAMILY", int(family)),
        ("SERVICE_PROTOCOL", int(interface.PROTOCOLS[key.protocol])),
        ("SERVICE_ADDRESS", packed),
        ("SERVICE_PORT", key.port),
    ]


def whole_service(service: VirtualService) -> Attributes:
    """Returns a service with its settings; the kernel wants all of them, also in an edit."""
    attributes = [
        *identity(service.key),
        ("SERVICE_SCHEDULER", service.scheduler),
        ("SERVICE_FLAGS", {"flags": flag_bits(service), "mask": 0xFFFFFFFF}),
        ("SERVICE_TIMEOUT", service.persistence_timeout or 0),
        ("SERVICE_NETMASK", netmask(service)),
    ]
    if service.persistence_engine:
        attributes.append(("SERVICE_ENGINE", service.persistence_engine))
    return attributes


def flag_bits(service: VirtualService) -> int:
    """Returns the bits of a service's flags."""
    bits = 0 if service.persistence_timeout is None else interface.PERSISTENT
    for flag in service.flags:
        bits |= interface.FLAG_BITS[flag]
    return bits


def netmask(service: VirtualService) -> bytes:
    """Returns a netmask; without persistence that of one client, which the kernel wants all the same."""
    if service.family == "ipv4":
        return socket.inet_aton(service.persistence_netmask or "255.255.255.255")
    return native(int(service.persistence_netmask or 128), 4)


def server_identity(server: RealServer) -> Attributes:
    """Returns what names a server within its service."""
    family, packed = packed_address(server.address)
    return [("SERVER_ADDRESS", packed), ("SERVER_PORT", server.port), ("SERVER_FAMILY", int(family))]


def whole_server(server: RealServer) -> Attributes:
    """Returns a server with its settings."""
    attributes = [
        *server_identity(server),
        ("SERVER_FORWARDING", interface.EVERY_FORWARDING[server.forwarding]),
        ("SERVER_WEIGHT", server.weight),
        ("SERVER_UPPER_THRESHOLD", server.upper_threshold),
        ("SERVER_LOWER_THRESHOLD", server.lower_threshold),
    ]
    if server.tunnel_type is not None and server.tunnel_checksum is not None:
        attributes += [
            ("SERVER_TUNNEL_TYPE", interface.TUNNEL_TYPES[server.tunnel_type]),
            ("SERVER_TUNNEL_PORT", server.tunnel_port),
            ("SERVER_TUNNEL_FLAGS", interface.TUNNEL_CHECKSUMS[server.tunnel_checksum]),
        ]
    return attributes


def packed_address(address: str) -> tuple[socket.AddressFamily, bytes]:
    """Returns family and bytes of an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)
