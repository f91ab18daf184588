# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes of sockops: parsed and validated, nothing touched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ...errors import InvalidInput
from ...model import Json, Mode
from ...system import cgroups
from . import layout

DEFAULT_MAXIMUM_CONNECTIONS = 32768
#: The most whose two sockets each a socket hash takes without an absurd table.
LARGEST_MAXIMUM_CONNECTIONS = 4194304
DEFAULT_RECEIVE_MEMORY_LIMIT = 4 * 1024 * 1024
SMALLEST_RECEIVE_MEMORY_LIMIT = 64 * 1024
LARGEST_RECEIVE_MEMORY_LIMIT = 1024 * 1024 * 1024
LARGEST_PORT = 65535
LONGEST_NUMBER = 18
UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|slice|scope)")
POD_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")

KEYS = frozenset({"state", "mode", "cgroups", "ports", "maximum_connections", "receive_memory_limit"})
CGROUP_SELECTORS = ("path", "systemd_unit", "kubernetes_pod")
CGROUP_KEYS = frozenset({*CGROUP_SELECTORS, "mode", "ports"})
DOCUMENT_CGROUP_KEYS = frozenset({"label", "candidates", "mode", "ports"})


@dataclass(frozen=True, order=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class CgroupWish:
    """One cgroup to accelerate: where it can be, and how.

    ``candidates`` are paths relative to the cgroup2 mount, of which the first
    that exists is meant. ``label`` is the operator's own word, for messages.
    """

    label: str
    candidates: tuple[str, ...]
    mode: Mode
    ports: tuple[PortRange, ...]


@dataclass(frozen=True)
class Desired:
    """The wish as a whole. receive_memory_limit is in bytes for each socket."""

    present: bool
    mode: Mode
    cgroups: tuple[CgroupWish, ...]
    maximum_connections: int
    receive_memory_limit: int

    def document(self) -> bytes:
        """Returns the file that keeps this wish on the node, for restore."""
        content = {
            "state": "present" if self.present else "absent",
            "mode": self.mode.value,
            "maximum_connections": self.maximum_connections,
            "receive_memory_limit": self.receive_memory_limit,
            "cgroups": [
                {
                    "label": wish.label,
                    "candidates": list(wish.candidates),
                    "mode": wish.mode.value,
                    "ports": [str(ports) for ports in wish.ports],
                }
                for wish in self.cgroups
            ],
        }
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def parse(raw: Mapping[str, Json], hierarchy: cgroups.Hierarchy) -> Desired:
    """Parses role variables without their prefix (``mode``, ``cgroups``, ...).

    Raises InvalidInput for the first thing that is wrong.
    """
    reject_unknown(raw, KEYS, "sockops")
    ports = parse_ports(given(raw, "ports"))
    wishes = tuple(parse_cgroup(entry, ports, hierarchy) for entry in listed(raw, "cgroups"))
    return validated(raw, wishes)


def validated(raw: Mapping[str, Json], wishes: tuple[CgroupWish, ...]) -> Desired:
    """Checks what is common to role variables and the kept document."""
    check_no_duplicates(wishes)
    if len(wishes) >= layout.POLICIES:
        invalid(f"at most {layout.POLICIES - 1} cgroups", str(len(wishes)), "name parents instead")
    return Desired(
        present=choice(raw, "state", ("present", "absent"), "present") == "present",
        mode=Mode(choice(raw, "mode", tuple(mode.value for mode in Mode), "on")),
        cgroups=wishes,
        maximum_connections=number(
            raw, "maximum_connections", DEFAULT_MAXIMUM_CONNECTIONS, 1, LARGEST_MAXIMUM_CONNECTIONS
        ),
        receive_memory_limit=number(
            raw,
            "receive_memory_limit",
            DEFAULT_RECEIVE_MEMORY_LIMIT,
            SMALLEST_RECEIVE_MEMORY_LIMIT,
            LARGEST_RECEIVE_MEMORY_LIMIT,
        ),
    )


def load_document(content: bytes, path: str) -> Desired:
    """Reads back what document() wrote; raises InvalidInput when it is damaged."""
    try:
        raw = json.loads(content)
        require_keys(raw, KEYS - {"ports"})
        return validated(raw, tuple(map(load_wish, listed(raw, "cgroups"))))
    except (ValueError, InvalidInput) as error:
        raise InvalidInput(
            wanted=f"the desired state in {path}",
            found=f"a file that was damaged or edited by hand ({error!r})",
            remedy="run the playbook again; it writes the file anew",
        ) from error


def load_wish(entry: Mapping[str, Json]) -> CgroupWish:
    """Reads one cgroup of a kept document; raises InvalidInput."""
    require_keys(entry, DOCUMENT_CGROUP_KEYS)
    places = tuple(listed(entry, "candidates"))
    if not places or not all(isinstance(place, str) for place in places):
        invalid("the places of a cgroup", repr(entry), "restore the file")
    mode = choice(entry, "mode", tuple(mode.value for mode in Mode), "on")
    return CgroupWish(str(entry["label"]), places, Mode(mode), parse_ports(entry["ports"]))


def require_keys(entry: Json, keys: frozenset[str]) -> None:
    """Raises InvalidInput unless a part of a kept document has exactly these keys."""
    if not isinstance(entry, Mapping) or set(entry) != keys or None in entry.values():
        invalid("exactly the keys " + ", ".join(sorted(keys)), repr(entry), "restore the file")


def parse_cgroup(
    entry: Json, default_ports: tuple[PortRange, ...], hierarchy: cgroups.Hierarchy
) -> CgroupWish:
    """Parses one entry of sockops_cgroups: a path, or a dictionary."""
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, Mapping):
        invalid("a cgroup as a path or a dictionary", repr(entry), "see docs/sockops.md")
    reject_unknown(entry, CGROUP_KEYS, "sockops_cgroups")
    selectors = [name for name in CGROUP_SELECTORS if entry.get(name) is not None]
    if len(selectors) != 1:
        invalid(
            "exactly one of " + ", ".join(CGROUP_SELECTORS) + " for a cgroup",
            ", ".join(selectors) or "none of them",
            "name the cgroup in one way",
        )
    value = entry[selectors[0]]
    if not isinstance(value, str) or not value or "\0" in value:
        invalid(f"a {selectors[0]} as text", repr(value), "for example kubepods.slice")
    ports = default_ports if entry.get("ports") is None else parse_ports(entry["ports"])
    return CgroupWish(
        label=value,
        candidates=candidates(selectors[0], value, hierarchy),
        mode=Mode(choice(entry, "mode", tuple(mode.value for mode in Mode), "on")),
        ports=ports,
    )


def candidates(selector: str, value: str, hierarchy: cgroups.Hierarchy) -> tuple[str, ...]:
    """Returns where the cgroup that a selector names can be."""
    if selector == "path":
        return (hierarchy.relative(value),)
    if selector == "systemd_unit":
        if not UNIT_NAME.fullmatch(value):
            invalid("a service, slice or scope unit", repr(value), "for example nginx.service")
        return cgroups.systemd_candidates(value)
    if not POD_UID.fullmatch(value):
        invalid("a pod's UID", repr(value), "see metadata.uid of the pod")
    return cgroups.kubernetes_candidates(value)


def parse_ports(entries: Json) -> tuple[PortRange, ...]:
    """Parses a list of ports (``80``, ``"8000-8100"``), sorted; empty means all."""
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        invalid("a list of ports", repr(entries), 'for example [15006, "8000-8100"]')
    ranges = tuple(sorted({parse_port_range(entry) for entry in entries}))
    if len(ranges) > layout.PORT_RANGES:
        invalid(f"at most {layout.PORT_RANGES} ports and ranges", str(len(ranges)), "join some")
    return ranges


def parse_port_range(entry: Json) -> PortRange:
    """Parses one port or range."""
    first, separator, last = str(entry).partition("-")
    numbers = (first, last if separator else first)
    if isinstance(entry, bool) or not all(is_number(text) for text in numbers):
        invalid("a port or a range of ports", repr(entry), 'for example 15006 or "8000-8100"')
    result = PortRange(int(numbers[0]), int(numbers[1]))
    if not 1 <= result.first <= result.last <= LARGEST_PORT:
        invalid(f"ports from 1 to {LARGEST_PORT}, first not above last", repr(entry), "correct it")
    return result


def check_no_duplicates(wishes: tuple[CgroupWish, ...]) -> None:
    """Raises InvalidInput when a cgroup is named twice."""
    seen: set[str] = set()
    for wish in wishes:
        repeated = seen.intersection(wish.candidates)
        if repeated:
            invalid("each cgroup once", f"{min(repeated)} twice", "merge the two entries")
        seen.update(wish.candidates)


def listed(raw: Mapping[str, Json], key: str) -> Sequence[Json]:
    """Returns a list-valued key; absent means empty."""
    value = raw.get(key)
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        invalid(f"a list for sockops_{key}", repr(value), "write it as a YAML list")
    return tuple(value)


def choice(raw: Mapping[str, Json], key: str, allowed: tuple[str, ...], default: str) -> str:
    """Returns a key that has a closed set of values."""
    value = raw.get(key)
    if value is None:
        return default
    # YAML 1.1 reads a bare on or off as a boolean.
    if isinstance(value, bool) and "on" in allowed:
        return "on" if value else "off"
    if value not in allowed:
        invalid(f"{key} to be one of {', '.join(allowed)}", repr(value), "correct it")
    return str(value)


def number(raw: Mapping[str, Json], key: str, default: int, smallest: int, largest: int) -> int:
    """Returns a whole number within its limits."""
    value = raw.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not is_number(str(value)):
        invalid(f"a whole number for sockops_{key}", repr(value), "correct it")
    if not smallest <= int(value) <= largest:
        invalid(f"sockops_{key} from {smallest} to {largest}", str(value), "correct it")
    return int(value)


def is_number(text: str) -> bool:
    """True for plain decimal digits, few enough that int() takes them."""
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER


def given(raw: Mapping[str, Json], key: str) -> Json:
    """Returns a list-valued key; absent or null means an empty list."""
    return [] if raw.get(key) is None else raw[key]


def reject_unknown(raw: Mapping[str, Json], known: frozenset[str], where: str) -> None:
    """Raises InvalidInput for a key that means nothing here."""
    unknown = sorted(set(map(str, raw)) - known)
    if unknown:
        invalid(
            f"only {', '.join(sorted(known))} in {where}",
            ", ".join(unknown),
            "check the spelling",
        )


def invalid(wanted: str, found: str, remedy: str) -> NoReturn:
    """Raises InvalidInput."""
    raise InvalidInput(wanted=wanted, found=found, remedy=remedy)
