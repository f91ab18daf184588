"""The status of a sockops that is on, as `Sockops.status` returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops.layout import COUNTER_NAMES

if TYPE_CHECKING:
    from meshaccel.model import Json


def counters(**counted: int) -> dict[str, int]:
    """Return every counter, zero where it is not named."""
    return {**dict.fromkeys(COUNTER_NAMES, 0), **counted}


def cgroup(*, mode: str = "on", attached: bool = True, **counted: int) -> dict[str, Json]:
    """Return one cgroup's part of a status."""
    return {"mode": mode, "attached": attached, "ports": "all", "counters": counters(**counted)}


def status(cgroups: dict[str, dict[str, Json]] | None = None, **changes: Json) -> dict[str, Json]:
    """Return a status over these cgroups; `changes` replace parts of it."""
    chosen = {"envoy.slice": cgroup()} if cgroups is None else cgroups
    everything: dict[str, Json] = {
        "state": "present",
        "relays": [],
        "mode": "on",
        "held": None,
        "object": "0123456789abcdef",
        "maximum_connections": 32768,
        "connections": 0,
        "cgroups": chosen,
        "counters": {
            name: sum(entry["counters"][name] for entry in chosen.values()) for name in COUNTER_NAMES
        },
    }
    return {**everything, **changes}
