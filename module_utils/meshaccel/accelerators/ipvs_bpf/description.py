# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The state that is, and the one a plan leads to, in the same words: their difference is the diff."""

from __future__ import annotations

from collections.abc import Mapping

from ...ipvs.model import AddressKey
from ...model import Json
from .desired import Desired
from .layout import Masquerade
from .resolution import Resolved
from .state import Observed, Source

#: More of them in a diff help nobody.
MOST_DESCRIBED = 100
NATIVE: dict[str, Json] = {"state": "present", "mode": "native"}
#: Its kernel does what ours would do.
TENCENT: dict[str, Json] = {"state": "present", "mode": "tencent"}


def describe(desired: Desired, resolved: Resolved, observed: Observed) -> dict[str, Json]:
    """Returns the state a plan leads to, in the words of describe_observed()."""
    if not desired.present:
        return {"state": "absent"}
    if not resolved.attached:
        return dict(NATIVE)
    if observed.tencent.mode is not None:
        return dict(TENCENT)
    return {
        "state": "present",
        "mode": resolved.mode.value,
        "object": observed.object_file.digest if observed.object_file else None,
        "maximum_sessions": desired.maximum_sessions,
        "settings": resolved.settings.as_dict(),
        "devices": {
            wish.link.name: None if wish.source is None else wish.source.as_dict()
            for wish in resolved.devices
        },
        "local_networks": sorted(map(str, resolved.local_networks)),
        "services": describe_services(resolved.services),
    }


def describe_observed(observed: Observed) -> dict[str, Json]:
    """Returns what was observed, for the diff. Only what an operator can wish for."""
    loaded = observed.loaded
    if loaded is None and observed.document is not None and observed.tencent.active:
        return dict(TENCENT)
    if loaded is None:
        return {"state": "absent"} if observed.document is None else dict(NATIVE)
    if not loaded.usable or loaded.settings is None:
        return {"state": "incomplete"}
    return {
        "state": "present",
        "mode": loaded.mode.value,
        "object": loaded.digest,
        "maximum_sessions": loaded.maximum_sessions,
        "settings": loaded.settings.as_dict(),
        "devices": {
            state.link.name: describe_source(loaded.devices.get(state.link.index))
            for state in observed.devices
            if state.touched
        },
        "local_networks": sorted(map(str, loaded.local_networks)),
        "services": describe_services(loaded.services),
    }


def describe_source(source: Source | None) -> Json:
    """Returns what replaces clients' addresses at a device."""
    return None if source is None else source.as_dict()


def describe_services(services: Mapping[AddressKey, Masquerade]) -> Json:
    """Returns services for the diff: their number where they are many."""
    if len(services) > MOST_DESCRIBED:
        return len(services)
    return {str(key): masquerade.value for key, masquerade in sorted(services.items())}
