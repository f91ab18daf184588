# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes of ipvs_bpf: parsed and validated with every mistake told at once."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ... import kept_wish
from ...checks import Collector, Variables, choice, invalid, reject_unknown
from ...errors import InvalidInput
from ...model import Json
from . import kernel_settings, values
from .layout import LOCAL_NETWORKS, IpNetwork, Masquerade
from .values import ServiceWish, SourceWish

#: Of the role's variables.
PREFIX = "ipvs_bpf_"
DEFAULT_MAXIMUM_SESSIONS = 65536
#: Three flows each; beyond, the table alone takes gigabytes.
LARGEST_MAXIMUM_SESSIONS = 4194304
DEFAULT_OBSERVE_SECONDS = 3
DEFAULT_DRAIN_SECONDS = 300
LONGEST_SECONDS = 86400
NOTHING: Sequence[Json] = ()


class Follow(str, enum.Enum):
    """Which services are taken beside those that are listed."""

    NONE = "none"
    #: All that IPVS has.
    ALL = "all"
    #: Those of kube-proxy, masqueraded as its own rules decide.
    KUBE_PROXY = "kube_proxy"


@dataclass(frozen=True)
class Desired:
    """The wish as a whole; addresses and patterns as parsed, seconds as whole numbers."""

    present: bool = True
    bpf: bool = False
    fast_path: bool = False
    services: tuple[ServiceWish, ...] = ()
    follow: Follow = Follow.NONE
    masquerade: Masquerade = Masquerade.REMOTE
    local_networks: tuple[IpNetwork, ...] = ()
    #: None: as kube-proxy's rules have it.
    masquerade_all: bool | None = None
    devices: tuple[str, ...] = ("*",)
    source_addresses: tuple[SourceWish, ...] = ()
    mark_bits: tuple[int, int] = values.DEFAULT_MARK_BITS
    #: None: kube-proxy's own where it is followed, else none.
    mark_accepted: int | None = None
    maximum_sessions: int = DEFAULT_MAXIMUM_SESSIONS
    observe_seconds: int = DEFAULT_OBSERVE_SECONDS
    drain_seconds: int = DEFAULT_DRAIN_SECONDS
    kernel_settings: tuple[tuple[str, str | None], ...] = ()
    tencent_reload: bool = False

    def as_dict(self) -> dict[str, Json]:
        """Returns the wish as role variables without their prefix, each of them."""
        return {
            "state": "present" if self.present else "absent",
            "mode": "bpf" if self.bpf else "native",
            "fast_path": self.fast_path,
            "services": [wish.as_dict() for wish in self.services],
            "follow": self.follow.value,
            "masquerade": self.masquerade.value,
            "local_networks": [str(network) for network in self.local_networks],
            "masquerade_all": self.masquerade_all,
            "devices": list(self.devices),
            "source_addresses": {wish.pattern: wish.as_dict() for wish in self.source_addresses},
            "mark_bits": list(self.mark_bits),
            "mark_accepted": self.mark_accepted,
            "maximum_sessions": self.maximum_sessions,
            "observe_seconds": self.observe_seconds,
            "drain_seconds": self.drain_seconds,
            "kernel_settings": dict(self.kernel_settings),
            "tencent_reload": self.tencent_reload,
        }

    def document(self) -> bytes:
        """Returns the file that keeps this wish on the node, for restore and the follow daemon."""
        return (json.dumps(self.as_dict(), indent=2, sort_keys=True) + "\n").encode()


KEYS = frozenset(Desired().as_dict())


def parse(raw: Mapping[str, Json]) -> Desired:
    """Parses role variables without their prefix (``mode``, ``services``, ...); null means the default.

    Raises InvalidInput with a line for each mistake.
    """
    reject_unknown(raw, KEYS, "ipvs_bpf")
    collector = Collector()
    variables = Variables(raw, PREFIX)
    services = collector.parsed(lambda: variables.listed("services"), NOTHING)
    networks = collector.parsed(lambda: variables.listed("local_networks"), NOTHING)
    devices = collector.parsed(lambda: variables.listed("devices"), NOTHING)
    desired = Desired(
        present=collector.parsed(lambda: state(raw), True),
        bpf=collector.parsed(lambda: choice(raw, "mode", ("native", "bpf"), "native") == "bpf", False),
        fast_path=collector.parsed(lambda: variables.boolean("fast_path"), False),
        services=collector.each(services, f"{PREFIX}services", values.parse_service),
        follow=collector.parsed(lambda: Follow(choice(raw, "follow", FOLLOWED, "none")), Follow.NONE),
        masquerade=collector.parsed(
            lambda: values.parse_masquerade(raw.get("masquerade")), Masquerade.REMOTE
        ),
        local_networks=collector.each(networks, f"{PREFIX}local_networks", values.parse_network),
        masquerade_all=collector.parsed(
            lambda: None if raw.get("masquerade_all") is None else variables.boolean("masquerade_all"), None
        ),
        devices=collector.each(devices, f"{PREFIX}devices", values.parse_pattern) or ("*",),
        source_addresses=parse_sources(raw.get("source_addresses"), collector),
        mark_bits=collector.parsed(
            lambda: values.parse_mark_bits(raw.get("mark_bits")), values.DEFAULT_MARK_BITS
        ),
        mark_accepted=collector.parsed(lambda: values.parse_mark_accepted(raw.get("mark_accepted")), None),
        maximum_sessions=collector.parsed(
            lambda: variables.number(
                "maximum_sessions", DEFAULT_MAXIMUM_SESSIONS, 1, LARGEST_MAXIMUM_SESSIONS
            ),
            DEFAULT_MAXIMUM_SESSIONS,
        ),
        observe_seconds=collector.parsed(
            lambda: variables.number("observe_seconds", DEFAULT_OBSERVE_SECONDS, 0, LONGEST_SECONDS), 0
        ),
        drain_seconds=collector.parsed(
            lambda: variables.number("drain_seconds", DEFAULT_DRAIN_SECONDS, 0, LONGEST_SECONDS), 0
        ),
        kernel_settings=collector.parsed(lambda: parse_settings(raw.get("kernel_settings")), ()),
        tencent_reload=collector.parsed(lambda: variables.boolean("tencent_reload"), False),
    )
    collector.parsed(lambda: check_together(desired), None)
    collector.finish("the variables of ipvs_bpf")
    return desired


FOLLOWED = tuple(follow.value for follow in Follow)


def state(raw: Mapping[str, Json]) -> bool:
    """Returns whether ipvs_bpf is to be on the node."""
    return choice(raw, "state", ("present", "absent"), "present") == "present"


def parse_sources(raw: Json, collector: Collector) -> tuple[SourceWish, ...]:
    """Parses the addresses and ports by pattern of a device's name."""
    if raw is None:
        return ()
    if not isinstance(raw, Mapping):
        return collector.parsed(
            lambda: invalid(
                f"a dictionary for {PREFIX}source_addresses",
                repr(raw),
                "for example {eth0: {ipv4: 192.0.2.7}}",
            ),
            (),
        )
    return collector.each(
        list(raw.items()), f"{PREFIX}source_addresses", lambda item: values.parse_source(*item)
    )


def parse_settings(raw: Json) -> tuple[tuple[str, str | None], ...]:
    """Parses kernel settings; null means that none is the operator's."""
    return tuple(sorted(kernel_settings.parse({} if raw is None else raw).items()))


def check_together(desired: Desired) -> None:
    """Raises InvalidInput for values that are right alone and wrong together."""
    seen: set[object] = set()
    for wish in desired.services:
        if wish.key in seen:
            invalid(f"each service once in {PREFIX}services", f"{wish} twice", "leave one out")
        seen.add(wish.key)
    if len(set(desired.local_networks)) > LOCAL_NETWORKS:
        invalid(f"at most {LOCAL_NETWORKS} local networks", str(len(desired.local_networks)), "join some")
    taken = desired.mark_bits[0] | desired.mark_bits[1]
    values.check_mark_accepted(desired.mark_accepted or 0, desired.mark_bits)
    if desired.follow is Follow.KUBE_PROXY and taken & values.KUBE_PROXY_MARKS:
        invalid(
            f"{PREFIX}mark_bits that kube-proxy does not use",
            f"{taken:#x}, while 0x4000 and 0x8000 are its own",
            "choose two others",
        )
    if desired.present and desired.bpf and desired.follow is Follow.NONE and not desired.services:
        invalid(
            f"{PREFIX}services, or {PREFIX}follow all or kube_proxy, with {PREFIX}mode bpf",
            "neither, so there is nothing to take",
            "name services, or choose what to follow",
        )


def load_document(content: bytes, path: str) -> Desired:
    """Reads back what document() wrote; raises InvalidInput when it is damaged."""
    try:
        raw = json.loads(content)
        if not isinstance(raw, Mapping) or set(raw) != KEYS:
            invalid("exactly the keys " + ", ".join(sorted(KEYS)), repr(raw), "restore the file")
        return parse(raw)
    except (ValueError, InvalidInput) as error:
        raise kept_wish.damaged(path, error) from error
