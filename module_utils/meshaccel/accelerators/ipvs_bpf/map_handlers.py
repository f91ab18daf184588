# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what map_plan.py plans: writes the maps that say what the programs do."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
from collections.abc import Mapping

from ...bpf import maps
from ...bpf.pins import PinPlaces
from ...engine import Handler
from ...model import Json
from ...ports import parse_port_range
from . import layout
from .control import change_control
from .layout import Masquerade

PRESENT = 1


class MapHandlers:
    """The handlers of these maps."""

    def __init__(self, pins: PinPlaces) -> None:
        """Binds the handlers to the pins."""
        self._pins = pins

    def table(self) -> dict[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            "ipvs_bpf.write_settings": self.write_settings,
            "ipvs_bpf.write_devices": self.write_devices,
            "ipvs_bpf.write_services": self.write_services,
            "ipvs_bpf.write_networks": self.write_networks,
        }

    def write_settings(self, arguments: Mapping[str, Json]) -> None:
        """Writes marks and timeouts; mode and version stay."""
        change_control(self._pins, **{name: int(value) for name, value in arguments.items()})

    def write_devices(self, arguments: Mapping[str, Json]) -> None:
        """Writes what replaces clients' addresses at devices."""
        with maps.Map.pinned(self._pins.map("devices"), ctypes.c_uint32, layout.Device) as devices:
            for index in arguments["remove"]:
                devices.delete(ctypes.c_uint32(index))
            for index, source in arguments["write"].items():
                devices.write(ctypes.c_uint32(int(index)), device_entry(source))

    def write_services(self, arguments: Mapping[str, Json]) -> None:
        """Writes services that are taken, and removes others."""
        with maps.Map.pinned(self._pins.map("services"), layout.ServiceKey, layout.Service) as services:
            for protocol, address, port in arguments["remove"]:
                services.delete(service_key(protocol, address, port))
            for protocol, address, port, masquerade in arguments["write"]:
                number = layout.MASQUERADE_NUMBERS[Masquerade(masquerade)]
                services.write(service_key(protocol, address, port), layout.Service(masquerade=number))

    def write_networks(self, arguments: Mapping[str, Json]) -> None:
        """Writes networks whose clients are local, and removes others."""
        with maps.Map.pinned(self._pins.map("local_networks"), layout.Network, ctypes.c_uint32) as networks:
            for network in arguments["remove"]:
                networks.delete(network_key(network))
            for network in arguments["write"]:
                networks.write(network_key(network), ctypes.c_uint32(PRESENT))


def device_entry(source: Mapping[str, Json]) -> layout.Device:
    """Returns an entry of the devices' table."""
    ports = parse_port_range(source["ports"])
    return layout.Device(
        source_ipv4=optional_address(source["ipv4"]),
        source_ipv6=optional_address(source["ipv6"]),
        first_port=ports.first,
        last_port=ports.last,
    )


def optional_address(text: str | None) -> layout.Address:
    """Returns an address as the programs have it; None means none."""
    return layout.packed(None if text is None else ipaddress.ip_address(text))


def service_key(protocol: str, address: str, port: int) -> layout.ServiceKey:
    """Returns a key of the services' table."""
    return layout.ServiceKey(
        address=layout.packed(ipaddress.ip_address(address)),
        port=socket.htons(port),
        protocol=layout.PROTOCOL_NUMBERS[protocol],
    )


def network_key(network: str) -> layout.Network:
    """Returns a key of the local networks' trie."""
    return layout.packed_network(ipaddress.ip_network(network))
