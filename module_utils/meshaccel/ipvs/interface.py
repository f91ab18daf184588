# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers of the kernel's interface to IPVS, by its header linux/ip_vs.h, and our words for them."""

from __future__ import annotations

import socket

FAMILY = "IPVS"
VERSION = 1

# enum of commands
NEW_SERVICE, SET_SERVICE, DELETE_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_SERVER, SET_SERVER, DELETE_SERVER, GET_SERVER = 5, 6, 7, 8
GET_CONFIGURATION = 13

# attributes of a command
SERVICE, SERVER = 1, 2
TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP = 4, 5, 6

#: Attributes of a service, in the header's order from 1 on.
(
    SERVICE_FAMILY,
    SERVICE_PROTOCOL,
    SERVICE_ADDRESS,
    SERVICE_PORT,
    SERVICE_FIREWALL_MARK,
    SERVICE_SCHEDULER,
    SERVICE_FLAGS,
    SERVICE_TIMEOUT,
    SERVICE_NETMASK,
    _SERVICE_STATISTICS,
    SERVICE_ENGINE,
) = range(1, 12)

#: Attributes of a destination, in the header's order from 1 on.
(
    SERVER_ADDRESS,
    SERVER_PORT,
    SERVER_FORWARDING,
    SERVER_WEIGHT,
    SERVER_UPPER_THRESHOLD,
    SERVER_LOWER_THRESHOLD,
    SERVER_ACTIVE_CONNECTIONS,
    SERVER_INACTIVE_CONNECTIONS,
    _SERVER_PERSISTENT_CONNECTIONS,
    _SERVER_STATISTICS,
    SERVER_FAMILY,
    _SERVER_STATISTICS_64,
    SERVER_TUNNEL_TYPE,
    SERVER_TUNNEL_PORT,
    SERVER_TUNNEL_FLAGS,
) = range(1, 16)

#: IP_VS_SVC_F_*
PERSISTENT, HASHED, ONE_PACKET = 0x1, 0x2, 0x4
SCHEDULER_FLAGS = (0x8, 0x10, 0x20)
#: What the second and first scheduler flag mean to sh and mh; to others nothing (ipvsadm(8), --sched-flags).
FLAG_NAMES = {
    "sh-fallback": ("sh", 0x8),
    "sh-port": ("sh", 0x10),
    "mh-fallback": ("mh", 0x8),
    "mh-port": ("mh", 0x10),
}
ONE_PACKET_NAME = "ops"
#: Those that mean nothing to a scheduler have ipvsadm's names.
FLAG_BITS = {
    ONE_PACKET_NAME: ONE_PACKET,
    **{name: bit for name, (_, bit) in FLAG_NAMES.items()},
    **{f"flag-{position}": bit for position, bit in enumerate(SCHEDULER_FLAGS, start=1)},
}

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
PROTOCOL_NAMES = {int(protocol): name for name, protocol in PROTOCOLS.items()}
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
FAMILY_NAMES = {int(family): name for name, family in FAMILIES.items()}

#: IP_VS_CONN_F_*, of which FORWARDING_MASK is the part that says how packets get to a server.
FORWARDING_MASK = 0x7
FORWARDINGS = {"masquerade": 0, "tunnel": 2, "direct_routing": 3}
#: With two more that nobody wishes, and an old program could have set.
EVERY_FORWARDING = {**FORWARDINGS, "local": 1, "bypass": 4}
FORWARDING_NAMES = {number: name for name, number in EVERY_FORWARDING.items()}
#: How /proc/net/ip_vs names them.
LISTED_FORWARDINGS = {
    "Masq": "masquerade",
    "Local": "local",
    "Tunnel": "tunnel",
    "Route": "direct_routing",
    "Bypass": "bypass",
}

#: IP_VS_CONN_F_TUNNEL_TYPE_*: Linux 5.3 and newer; before there is ipip alone.
TUNNEL_TYPES = {"ipip": 0, "gue": 1, "gre": 2}
TUNNEL_TYPE_NAMES = {number: name for name, number in TUNNEL_TYPES.items()}
#: IP_VS_TUNNEL_ENCAP_FLAG_*
TUNNEL_CHECKSUMS = {"none": 0, "full": 1, "remote": 2}
TUNNEL_CHECKSUM_NAMES = {number: name for name, number in TUNNEL_CHECKSUMS.items()}
