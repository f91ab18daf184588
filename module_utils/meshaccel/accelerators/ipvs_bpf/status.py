# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What ipvs_bpf does on this node, how much, and every reason why not: as data and for a reader."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ... import holds, lock
from ...bpf import maps
from ...bpf.pins import PinPlaces
from ...errors import MeshaccelError, Unsupported
from ...model import Json
from ...system import tools
from . import NAME, layout, sessions
from .layout import FlowKind
from .observe import service_entries
from .resolution import Resolved
from .service import ABSENT, IpvsBpf
from .state import DeviceState, Loaded, Observed, Source

#: Modes in which nothing of ours is loaded.
WITHOUT_PROGRAMS = ("native", "tencent")
#: Counters of what is not a session, or goes no further.
FALLBACKS = ("native_", "ports_", "dropped_", "sessions_replaced", "sessions_clashed")


@dataclass(frozen=True)
class Found:
    """The node as a status sees it. ``trouble`` says why the wish could not be compared with it.

    Without ``nft`` it could not be told whether our table is there.
    """

    observed: Observed
    resolved: Resolved | None = None
    trouble: str = ""
    nft: bool = True
    table: sessions.Table = field(default_factory=dict)
    now: int = 0

    @property
    def alive(self) -> list[sessions.Session]:
        """The sessions that are alive."""
        return [each for each in sessions.sessions(self.table) if each.alive(self.now)]


def find(node: IpvsBpf) -> Found:
    """Looks at the node and at the wish that is kept on it."""
    try:
        run = node.look(node.kept_wish())
        observed = run.observe()
        resolved, trouble, nft = run.resolve(observed), "", True
    except (MeshaccelError, OSError) as error:
        observed, nft = observe_without_wish(node)
        resolved, trouble = None, str(error)
    table = sessions.read(node.pins) if observed.loaded is not None and observed.loaded.usable else {}
    return Found(observed, resolved, trouble, nft, table, sessions.monotonic())


def observe_without_wish(node: IpvsBpf) -> tuple[Observed, bool]:
    """Looks at the node alone; returns whether nft could be asked, too."""
    run = node.look(node.parse(ABSENT))
    try:
        return run.observe(), True
    except (tools.ToolFailed, Unsupported):
        return run.observe(nft=False), False


def status(node: IpvsBpf) -> dict[str, Json]:
    """Returns mode, sessions, port use, devices, services and every reason for conntrack, as plain data."""
    if not node.present:
        return dict(ABSENT)
    found = find(node)
    loaded, resolved = found.observed.loaded, found.resolved
    if loaded is not None and not loaded.usable:
        return {"state": "incomplete"}
    return {
        "state": "present",
        "mode": mode_of(found),
        "held": holds.words(node.paths, NAME),
        "trouble": found.trouble or None,
        "following": lock.is_held(node.paths.follower),
        "native": dict(resolved.native) if resolved else {},
        "left_out": dict(resolved.left_out) if resolved else {},
        "occupied": dict(resolved.occupied) if resolved else {},
        **({} if loaded is None else loaded_status(node.pins, loaded, found)),
    }


def mode_of(found: Found) -> str:
    """Returns the programs' mode; without any native, or that TencentOS does the same by itself."""
    if found.observed.loaded is not None:
        return found.observed.loaded.mode.value
    return "tencent" if found.observed.tencent.active else "native"


def loaded_status(pins: PinPlaces, loaded: Loaded, found: Found) -> dict[str, Json]:
    """Returns the part of the status that there is while programs are loaded."""
    alive, nft = found.alive, found.observed.notrack
    kinds = [flow.kind for flow in found.table.values()]
    return {
        "object": loaded.digest,
        "maximum_sessions": loaded.maximum_sessions,
        "sessions": {
            "alive": len(alive),
            "masqueraded": sum(session.masqueraded for session in alive),
            "closed": kinds.count(FlowKind.REQUEST) - len(alive),
        },
        "flows": {kind.name.lower(): kinds.count(kind) for kind in FlowKind},
        "devices": devices_status(loaded, found),
        "services": {
            str(key): {
                "masquerade": layout.MASQUERADES[service.masquerade].value,
                "sessions": service.sessions,
            }
            for key, service in sorted(service_entries(pins).items())
        },
        "counters": counters(pins),
        "nft": {
            "in_force": nft.table is not None if found.nft else None,
            "bypassed": nft.bypassed,
        },
    }


def devices_status(loaded: Loaded, found: Found) -> dict[str, Json]:
    """Returns each attached device with what replaces clients' addresses there, and how much is in use."""
    used = sessions.ports_in_use(found.table, loaded.devices.values())
    return {
        state.link.name: device_status(state, loaded.devices.get(state.link.index), used)
        for state in found.observed.devices
        if state.touched or state.link.index in loaded.devices
    }


def device_status(state: DeviceState, source: Source | None, used: Mapping[str, int]) -> dict[str, Json]:
    """Returns one device's part."""
    attached = state.ingress is not None and (state.egress is not None or source is None)
    if source is None:
        return {"attached": attached, "source": None, "foreign": list(state.foreign)}
    addresses = [str(address) for address in (source.ipv4, source.ipv6) if address is not None]
    return {
        "attached": attached,
        "source": source.as_dict(),
        "ports": source.ports.last - source.ports.first + 1,
        "ports_used": {address: used.get(address, 0) for address in addresses},
        "foreign": list(state.foreign),
    }


def counters(pins: PinPlaces) -> dict[str, int]:
    """Returns the programs' counters, summed over CPUs."""
    with maps.Map.pinned(pins.map("counters"), ctypes.c_uint32, layout.Counters) as table:
        cpus = table.read_per_cpu(ctypes.c_uint32(0))
    return {name: sum(getattr(cpu, name) for cpu in cpus) for name in layout.COUNTER_NAMES}


# ---- for a reader ----


def status_lines(status: Mapping[str, Json]) -> list[str]:
    """Returns a status for a reader."""
    held = status["held"] or {"mode": None}
    by_hand = "  (held by an operator; lift with: meshaccel on ipvs_bpf)" if held["mode"] else ""
    lines = [f"ipvs_bpf  {status['mode']}{by_hand}"]
    if "error" in held:
        lines.append(f"  what is held cannot be read: {held['error']}")
    if status["trouble"]:
        lines.append(f"  the wish kept here cannot be compared with the node: {status['trouble']}")
    if status["mode"] not in WITHOUT_PROGRAMS:
        lines += loaded_lines(status)
    lines += [f"  native device {name}  {reason}" for name, reason in status["occupied"].items()]
    for service, reason in status["native"].items():
        lines.append(f"  native {service}  {reason}")
    if status["mode"] not in WITHOUT_PROGRAMS and not status["following"]:
        lines.append("  NOT FOLLOWED: nothing follows new devices and services; see meshaccel-follow.service")
    return lines


def loaded_lines(status: Mapping[str, Json]) -> list[str]:
    """Returns the lines that there are while programs are loaded."""
    sessions_now, flows = status["sessions"], status["flows"]
    lines = [
        f"  sessions  {sessions_now['alive']} of {status['maximum_sessions']}",
        f"  masqueraded  {sessions_now['masqueraded']}",
        f"  noted as conntrack's  {flows['legacy']} flows",
        f"  services  {len(status['services'])}",
    ]
    if status["nft"]["in_force"] is False and status["mode"] != "off":
        lines.append("  NFT TABLE MISSING: conntrack sees the services' flows; run meshaccel restore")
    lines += [line for name, device in status["devices"].items() for line in device_lines(name, device)]
    lines += [
        f"  {name}  {value}"
        for name, value in status["counters"].items()
        if value and name.startswith(FALLBACKS)
    ]
    return lines


def device_lines(name: str, device: Mapping[str, Json]) -> Iterable[str]:
    """Yields one device's lines."""
    missing = "" if device["attached"] else "  NOT ATTACHED: run meshaccel restore"
    if device["source"] is None:
        yield f"  device {name}  a bridge's port{missing}"
        return
    used = [
        f"{address} {count} of {device['ports']} ports in use"
        for address, count in device["ports_used"].items()
    ]
    yield f"  device {name}  {', '.join(used) or 'no address'}{missing}"
