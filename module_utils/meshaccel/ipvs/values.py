# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Single values of services and servers: parsed, in canonical form. Raise InvalidInput.

Written for ten thousand services in one call: what is right takes no exception and
no object but itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable, Mapping

from ..checks import invalid, is_number
from ..model import Json
from . import interface

LARGEST_PORT = 65535
#: ipvsadm(8) has the same limit; the kernel adds weights up.
LARGEST_WEIGHT = 65535
#: The kernel compares with counts that are signed.
LARGEST_THRESHOLD = 2147483647
LARGEST_MARK = 4294967295
#: 31 days, as ipvsadm(8).
LARGEST_TIMEOUT = 2678400
#: IP_VS_SCHEDNAME_MAXLEN, with its zero byte. It becomes part of a module's name.
NAME = re.compile(r"[a-z0-9_]{1,15}")
FIRST_MULTICAST = 224
MAPPED = bytes(10) + b"\xff\xff"


def whole(value: Json, what: str, smallest: int, largest: int) -> int:
    """Returns a whole number within limits."""
    # A template of Ansible's may hand over text.
    found = int(value) if isinstance(value, str) and is_number(value) else value
    if type(found) is not int or not smallest <= found <= largest:
        invalid(f"{what} from {smallest} to {largest}", repr(value), "correct it")
    return found


def one_of(value: Json, what: str, allowed: Collection[str]) -> str:
    """Returns a word of a closed set."""
    if not isinstance(value, str) or value not in allowed:
        invalid(f"{what} of {', '.join(allowed)}", repr(value), "correct it")
    return value


def name(value: Json, what: str) -> str:
    """Returns the name of a part of the kernel that it loads as a module."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        invalid(f"the name of a {what}", repr(value), "for example wlc")
    return value


def address(value: Json, what: str) -> tuple[str, str]:
    """Returns family and canonical text of an address that one machine can have."""
    try:
        family = "ipv6" if ":" in value else "ipv4"
        packed = socket.inet_pton(interface.FAMILIES[family], value)
    except (OSError, TypeError, ValueError):
        invalid(f"an address of IPv4 or IPv6 as {what}", repr(value), "names are not looked up")
    if not is_of_one_machine(packed):
        invalid(
            f"an address of one machine as {what}",
            f"{value!r}, which is multicast, unspecified, link-local or mapped",
            "give the address that packets carry",
        )
    return family, socket.inet_ntop(interface.FAMILIES[family], packed)


def is_of_one_machine(packed: bytes) -> bool:
    """False for addresses that IPVS cannot schedule to: RFC 6890, RFC 4291."""
    if len(packed) == 4:
        return 0 < packed[0] < FIRST_MULTICAST
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return packed[0] != 0xFF and any(packed) and not link_local and not packed.startswith(MAPPED)


def netmask(value: Json, family: str) -> str:
    """Returns a netmask as the kernel has it: dotted for IPv4, a prefix length for IPv6."""
    longest = 32 if family == "ipv4" else 128
    if family == "ipv4" and isinstance(value, str) and "." in value:
        try:
            return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, value))
        except (OSError, ValueError):
            invalid("a netmask", repr(value), "for example 255.255.255.0, or 24")
    length = whole(value, "a prefix length as persistence_netmask", 1, longest)
    if family == "ipv6":
        return str(length)
    return socket.inet_ntoa(((0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF).to_bytes(4, "big"))


def flags(value: Json, scheduler: str) -> tuple[str, ...]:
    """Returns the flags of a service, sorted, of those that its scheduler has."""
    if not isinstance(value, list):
        invalid("flags as a list", repr(value), "for example [sh-port]")
    own = [flag for flag, (owner, _) in interface.FLAG_NAMES.items() if owner == scheduler]
    allowed = [interface.ONE_PACKET_NAME, *own]
    return tuple(sorted({one_of(flag, f"flags with the scheduler {scheduler}", allowed) for flag in value}))


def end(value: str) -> tuple[str, str | None]:
    """Splits ``10.0.0.1:80``, ``[fd00::1]:80`` or an address alone."""
    if value.startswith("["):
        inner, closed, port = value[1:].rpartition("]:")
        return (inner, port) if closed else (value, None)
    if value.count(":") == 1:
        inner, _, port = value.partition(":")
        return inner, port
    return value, None


def require_known(entry: Mapping[str, Json], known: frozenset[str]) -> None:
    """Raises InvalidInput for keys that mean nothing here."""
    if not known.issuperset(entry):
        unknown: Iterable[str] = sorted(str(key) for key in entry if key not in known)
        invalid(f"only the keys {', '.join(sorted(known))}", ", ".join(unknown), "check the spelling")
