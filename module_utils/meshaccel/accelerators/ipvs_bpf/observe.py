# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What ipvs_bpf is on this node now: pins, maps, devices, nft, files. Reads, changes nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import replace

from ... import holds
from ...bpf import maps, ownership, traffic_control
from ...bpf.object_file import ObjectFile
from ...bpf.pins import PinPlaces, map_shape, program_id
from ...ipvs.model import AddressKey
from ...paths import NodePaths
from ...ports import PortRange
from ...system import files, systemd
from ...system.route_netlink import Link
from ...unit_actions import Unit
from . import NAME, kernel_settings, layout, notrack, tencent
from .follow_unit import UNIT_NAME
from .layout import Masquerade, ProgramMode
from .settings_before import settings_before
from .state import DeviceState, Loaded, Observed, Program, Settings, Source, Surroundings

ONLY = ctypes.c_uint32(0)


def places(paths: NodePaths) -> PinPlaces:
    """Returns where ipvs_bpf keeps its pins."""
    return PinPlaces(os.path.join(paths.pins, NAME))


def observe(
    paths: NodePaths,
    object_file: ObjectFile | None,
    surroundings: Surroundings,
    *,
    nft: bool | None,
    ipvs_loaded: bool,
    root: str,
) -> Observed:
    """Reads the node's state; raises NotOurs or Unsupported when something stands in the way.

    ``nft``, which the node may not have, is asked where the wish needs it (True), where
    something of ours is left (False), or never (None). ``root`` is where /proc/sys and /etc are.
    """
    bpffs = ownership.observe_bpffs_of(paths, NAME)
    pins = places(paths)
    loaded = observe_loaded(pins) if bpffs.mounted else None
    devices = observe_devices(surroundings.links, programs_by_id(pins) if bpffs.mounted else {})
    left = loaded is not None or any(state.touched for state in devices)
    asks = nft or (left and nft is not None)
    return Observed(
        bpffs=bpffs,
        surroundings=surroundings,
        loaded=loaded,
        devices=devices,
        object_file=object_file,
        document=files.read(paths.desired(NAME)),
        settings=kernel_settings.observe(root),
        settings_before=files.read(settings_before(paths)),
        ipvs_loaded=ipvs_loaded,
        tencent=tencent.observe(root),
        notrack=notrack.observe() if asks else notrack.Observed(),
        hold=holds.read(paths, NAME),
        follow_unit=Unit.observe(paths, UNIT_NAME) if systemd.running() else None,
    )


# ---- pins ----


def observe_loaded(pins: PinPlaces) -> Loaded | None:
    """Reads the pinned maps and programs; None when nothing is pinned."""
    if not os.path.isdir(pins.root):
        return None
    if not pins.maps_complete(layout.MAP_SIZES):
        return Loaded(complete=False)
    shapes = {name: map_shape(pins.map(name)) for name in layout.MAP_SIZES}
    same = {
        name for name, shape in shapes.items() if (shape.key_size, shape.value_size) == layout.MAP_SIZES[name]
    }
    if "control" not in same:
        # Another release's, or somebody else's: which version this is cannot be read.
        return Loaded(complete=False)
    control = read_control(pins)
    if not pins.programs_complete(control.digest, layout.PROGRAMS):
        return Loaded(complete=False)
    loaded = Loaded(
        complete=True,
        digest=control.digest,
        maximum_sessions=shapes["flows"].maximum_entries // layout.FLOWS_PER_SESSION,
        same_layout=same == set(shapes),
        stale_versions=tuple(sorted(set(ownership.entries_of(pins.versions)) - {control.digest})),
    )
    return with_tables(loaded, control, pins) if loaded.same_layout else loaded


def with_tables(loaded: Loaded, control: layout.Control, pins: PinPlaces) -> Loaded:
    """Adds what the maps of our layout say."""
    return replace(
        loaded,
        mode=layout.MODES.get(control.mode, ProgramMode.OFF),
        settings=settings_of(control),
        devices=read_devices(pins),
        services=read_services(pins),
        local_networks=frozenset(read_networks(pins)),
    )


def read_control(pins: PinPlaces) -> layout.Control:
    """Reads the control entry."""
    with maps.Map.pinned(pins.map("control"), ctypes.c_uint32, layout.Control) as control:
        return control.read(ONLY) or layout.Control()


def settings_of(control: layout.Control) -> Settings:
    """Returns the control entry without mode and version."""
    return Settings(**{name: getattr(control, name) for name in Settings.__dataclass_fields__})


def read_devices(pins: PinPlaces) -> dict[int, Source]:
    """Reads what replaces clients' addresses, by the index of the device."""
    with maps.Map.pinned(pins.map("devices"), ctypes.c_uint32, layout.Device) as devices:
        return {index.value: source_of(device) for index, device in devices.items()}


def source_of(device: layout.Device) -> Source:
    """Returns an entry in our words."""
    ports = PortRange(device.first_port, device.last_port)
    return Source(layout.unpacked(device.source_ipv4), layout.unpacked(device.source_ipv6), ports)


def read_services(pins: PinPlaces) -> dict[AddressKey, Masquerade]:
    """Reads the services that are taken."""
    return {
        key: layout.MASQUERADES.get(service.masquerade, Masquerade.ALWAYS)
        for key, service in service_entries(pins).items()
    }


def service_entries(pins: PinPlaces) -> dict[AddressKey, layout.Service]:
    """Reads the services' table as the programs have it."""
    with maps.Map.pinned(pins.map("services"), layout.ServiceKey, layout.Service) as services:
        return {service_key(key): service for key, service in services.items()}


def service_key(key: layout.ServiceKey) -> AddressKey:
    """Returns a key of the table in IPVS's words."""
    protocol = layout.PROTOCOLS.get(key.protocol, str(key.protocol))
    return AddressKey(protocol, str(layout.unpacked(key.address)), socket.ntohs(key.port))


def read_networks(pins: PinPlaces) -> Iterable[layout.IpNetwork]:
    """Reads the local networks. A trie is walked: the kernel reads those in batches from 5.16 on only."""
    with maps.Map.pinned(pins.map("local_networks"), layout.Network, ctypes.c_uint32) as networks:
        return list(map(layout.unpacked_network, networks.keys()))


def programs_by_id(pins: PinPlaces) -> dict[int, Program]:
    """Returns every pinned program of every version, by the kernel's id."""
    return {
        program_id(pins.program(digest, name)): Program(digest, name)
        for digest in ownership.entries_of(pins.versions)
        for name in ownership.entries_of(pins.programs(digest))
    }


# ---- devices ----


def observe_devices(links: Iterable[Link], programs: dict[int, Program]) -> tuple[DeviceState, ...]:
    """Looks at what hangs at each device; one that went meanwhile is said to be gone."""
    return tuple(observe_device(link, programs) for link in links)


def observe_device(link: Link, programs: dict[int, Program]) -> DeviceState:
    """Looks at one device."""
    try:
        hook = traffic_control.observe(link.index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return DeviceState(link, gone=True)
    return DeviceState(
        link,
        clsact=hook.clsact,
        ingress=program_of(hook.ingress, programs),
        egress=program_of(hook.egress, programs),
        foreign=hook.foreign,
        occupant=hook.occupant,
    )


def program_of(found: traffic_control.Filter | None, programs: dict[int, Program]) -> Program | None:
    """Returns which program a filter of ours runs."""
    if found is None:
        return None
    return programs.get(found.program_id, Program("", found.name))
