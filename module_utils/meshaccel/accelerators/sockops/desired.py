# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes of sockops: parsed and validated, nothing touched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ... import kept_wish
from ...bpf.loaders import Loader
from ...checks import Variables, choice, given, invalid, reject_unknown
from ...errors import InvalidInput
from ...model import Json, Mode
from ...ports import PortRange
from ...system import cgroups
from . import layout
from .denials import desired as denial_wishes
from .ports import parse_ports
from .relays.desired import Relay, parse_relays

#: Of the role's variables.
PREFIX = "sockops_"
DEFAULT_MAXIMUM_CONNECTIONS = 32768
#: The most whose two sockets each a socket hash takes without an absurd table.
LARGEST_MAXIMUM_CONNECTIONS = 4194304
DEFAULT_RECEIVE_MEMORY_LIMIT = 4 * 1024 * 1024
SMALLEST_RECEIVE_MEMORY_LIMIT = 64 * 1024
LARGEST_RECEIVE_MEMORY_LIMIT = 1024 * 1024 * 1024
UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|slice|scope)")
POD_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")

KEYS = frozenset(
    {
        "state",
        "mode",
        "cgroups",
        "ports",
        "maximum_connections",
        "receive_memory_limit",
        "adopt_existing",
        "relays",
        "loader",
        *denial_wishes.KEYS,
    }
)
#: Keys that documents of earlier releases do not have; absent means the default.
LATER_KEYS = frozenset({"adopt_existing", "relays", "loader", *denial_wishes.KEYS})
CGROUP_SELECTORS = ("path", "systemd_unit", "kubernetes_pod")
CGROUP_KEYS = frozenset({*CGROUP_SELECTORS, "mode", "ports"})
DOCUMENT_CGROUP_KEYS = frozenset({"label", "candidates", "mode", "ports"})


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
    adopt_existing: bool
    denials: denial_wishes.Denials = field(default_factory=denial_wishes.Denials)
    relays: tuple[Relay, ...] = ()
    loader: Loader = Loader.LIBBPF

    def document(self) -> bytes:
        """Returns the file that keeps this wish on the node, for restore."""
        content = {
            "state": "present" if self.present else "absent",
            "mode": self.mode.value,
            "maximum_connections": self.maximum_connections,
            "receive_memory_limit": self.receive_memory_limit,
            "adopt_existing": self.adopt_existing,
            "loader": self.loader.value,
            **self.denials.as_dict(),
            "relays": [relay.as_dict() for relay in self.relays],
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
    wishes = tuple(
        parse_cgroup(entry, ports, hierarchy) for entry in Variables(raw, PREFIX).listed("cgroups")
    )
    return validated(raw, wishes)


def validated(raw: Mapping[str, Json], wishes: tuple[CgroupWish, ...]) -> Desired:
    """Checks what is common to role variables and the kept document."""
    variables = Variables(raw, PREFIX)
    check_no_duplicates(wishes)
    if len(wishes) >= layout.POLICIES:
        invalid(f"at most {layout.POLICIES - 1} cgroups", str(len(wishes)), "name parents instead")
    return Desired(
        present=choice(raw, "state", ("present", "absent"), "present") == "present",
        mode=Mode(choice(raw, "mode", tuple(mode.value for mode in Mode), "on")),
        cgroups=wishes,
        maximum_connections=variables.number(
            "maximum_connections", DEFAULT_MAXIMUM_CONNECTIONS, 1, LARGEST_MAXIMUM_CONNECTIONS
        ),
        receive_memory_limit=variables.number(
            "receive_memory_limit",
            DEFAULT_RECEIVE_MEMORY_LIMIT,
            SMALLEST_RECEIVE_MEMORY_LIMIT,
            LARGEST_RECEIVE_MEMORY_LIMIT,
        ),
        adopt_existing=variables.boolean("adopt_existing"),
        denials=denial_wishes.parse(raw),
        relays=parse_relays(raw.get("relays"), any_cgroup=bool(wishes) or raw.get("state") == "absent"),
        loader=Loader(choice(raw, "loader", tuple(loader.value for loader in Loader), "libbpf")),
    )


def load_document(content: bytes, path: str) -> Desired:
    """Reads back what document() wrote; raises InvalidInput when it is damaged."""
    try:
        raw = json.loads(content)
        require_keys(raw, KEYS - {"ports"}, LATER_KEYS)
        return validated(raw, tuple(map(load_wish, Variables(raw, PREFIX).listed("cgroups"))))
    except (ValueError, InvalidInput) as error:
        raise kept_wish.damaged(path, error) from error


def load_wish(entry: Mapping[str, Json]) -> CgroupWish:
    """Reads one cgroup of a kept document; raises InvalidInput."""
    require_keys(entry, DOCUMENT_CGROUP_KEYS)
    places = tuple(Variables(entry, PREFIX).listed("candidates"))
    if not places or not all(isinstance(place, str) for place in places):
        invalid("the places of a cgroup", repr(entry), "restore the file")
    mode = choice(entry, "mode", tuple(mode.value for mode in Mode), "on")
    return CgroupWish(str(entry["label"]), places, Mode(mode), parse_ports(entry["ports"]))


def require_keys(entry: Json, keys: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    """Raises InvalidInput unless a part of a kept document has exactly these keys."""
    if not isinstance(entry, Mapping) or set(entry) | optional != keys or None in entry.values():
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


def check_no_duplicates(wishes: tuple[CgroupWish, ...]) -> None:
    """Raises InvalidInput when a cgroup is named twice."""
    seen: set[str] = set()
    for wish in wishes:
        repeated = seen.intersection(wish.candidates)
        if repeated:
            invalid("each cgroup once", f"{min(repeated)} twice", "merge the two entries")
        seen.update(wish.candidates)
