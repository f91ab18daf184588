# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The maps that say what the programs do, written where they differ, each with the way back. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...errors import InvalidInput
from ...ipvs.model import AddressKey
from ...model import Action, Json, Plan
from .layout import SERVICES, IpNetwork, Masquerade
from .resolution import Resolved
from .state import Loaded, Settings, Source

ServiceTable = Mapping[AddressKey, Masquerade]


def writing_settings(loaded: Loaded, wished: Settings) -> Plan:
    """Writes marks and timeouts; the mode is not touched."""
    before = loaded.settings
    if before == wished:
        return ()
    undo = () if before is None else (settings_action(before),)
    return (settings_action(wished, undo),)


def settings_action(settings: Settings, undo: Plan = ()) -> Action:
    """Builds the write of the settings."""
    return Action("ipvs_bpf.write_settings", "write marks and timeouts", settings.as_dict(), undo)


def removing_services(loaded: Loaded, resolved: Resolved) -> Plan:
    """Takes services out that are not to be taken any more."""
    before = {key: value for key, value in loaded.services.items() if key not in resolved.services}
    return changing_services(before, {})


def writing_services(loaded: Loaded, resolved: Resolved) -> Plan:
    """Writes services that are new, or masqueraded otherwise."""
    if len(resolved.services) > SERVICES:
        raise InvalidInput(
            wanted=f"at most {SERVICES} services",
            found=str(len(resolved.services)),
            remedy="list those that matter in ipvs_bpf_services",
        )
    after = {key: value for key, value in resolved.services.items() if loaded.services.get(key) is not value}
    return changing_services({key: loaded.services[key] for key in after if key in loaded.services}, after)


def changing_services(before: ServiceTable, after: ServiceTable) -> Plan:
    """Builds the change of the services of these keys, in one action."""
    if not before and not after:
        return ()
    undo = (services_action(after, before),)
    return (services_action(before, after, undo),)


def services_action(before: ServiceTable, after: ServiceTable, undo: Plan = ()) -> Action:
    """Builds the write of services, and the removal of those that are not in ``after``."""
    removed = [list(key) for key in before if key not in after]
    words = [f"take {counted(len(after), 'service')}"] if after else []
    words += [f"leave {counted(len(removed), 'service')} to conntrack"] if removed else []
    return Action(
        "ipvs_bpf.write_services",
        ", ".join(words),
        {"write": [[*key, value.value] for key, value in after.items()], "remove": removed},
        undo,
    )


def counted(number: int, noun: str) -> str:
    """Returns a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def writing_networks(loaded: Loaded, resolved: Resolved) -> Plan:
    """Writes the networks whose clients are local."""
    before, after = loaded.local_networks, resolved.local_networks
    if before == after:
        return ()
    return (networks_action(before, after, (networks_action(after, before),)),)


def networks_action(before: Collection[IpNetwork], after: Collection[IpNetwork], undo: Plan = ()) -> Action:
    """Builds the change of the local networks."""
    new, old = sorted(map(str, set(after) - set(before))), sorted(map(str, set(before) - set(after)))
    return Action(
        "ipvs_bpf.write_networks",
        "local networks: " + (", ".join(sorted(map(str, after))) or "none"),
        {"write": new, "remove": old},
        undo,
    )


def writing_devices(loaded: Loaded, resolved: Resolved, *, live: bool) -> Plan:
    """Writes what replaces clients' addresses at each device.

    On the way back of a run that was ``live`` new ones stay: sessions may have begun by them.
    """
    wished = resolved.sources
    after = {index: source for index, source in wished.items() if loaded.devices.get(index) != source}
    removed = {index: source for index, source in loaded.devices.items() if index not in wished}
    if not after and not removed:
        return ()
    before = {**removed, **{index: loaded.devices[index] for index in after if index in loaded.devices}}
    new = {} if live else after
    return (devices_action(before, after, (devices_action({**new, **before}, before),)),)


def devices_action(before: Mapping[int, Source], after: Mapping[int, Source], undo: Plan = ()) -> Action:
    """Builds the write of source addresses by device."""
    written: dict[str, Json] = {str(index): source.as_dict() for index, source in after.items()}
    removed = [index for index in before if index not in after]
    return Action(
        "ipvs_bpf.write_devices",
        f"source addresses of {counted(len(after), 'device')}, removed of {len(removed)}",
        {"write": written, "remove": removed},
        undo,
    )
