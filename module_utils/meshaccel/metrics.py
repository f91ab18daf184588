# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Prometheus text exposition of the node's status (format 0.0.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from .model import Json

HELP = {
    "meshaccel_sockops_mode": "1 for the mode that is in force.",
    "meshaccel_sockops_connections": "Connections now in the socket table.",
    "meshaccel_sockops_maximum_connections": "Connections the socket table has room for.",
    "meshaccel_sockops_relay_joined": "Pairs of connections that a relay joins now.",
    "meshaccel_sockops_relay_waiting": "Connections that wait for one of the other side.",
}
#: Of the metrics of each accelerator.
PREFIX = re.compile(r"meshaccel_(sockops|ipvs_bpf)_")
MODES = ("on", "off", "drain")


def render(sockops: Mapping[str, Json]) -> str:
    """Returns the metrics of one node, from the status of sockops."""
    if sockops.get("state") != "present":
        return ""
    lines: list[str] = []
    modes = {f'{{mode="{mode}"}}': int(sockops["mode"] == mode) for mode in MODES}
    add(lines, "meshaccel_sockops_mode", "gauge", modes)
    for name in ("connections", "maximum_connections"):
        add(lines, f"meshaccel_sockops_{name}", "gauge", {"": sockops[name]})
    for counter in sockops["counters"]:
        samples = {
            f'{{cgroup="{escape(path)}"}}': entry["counters"][counter]
            for path, entry in sockops["cgroups"].items()
        }
        add(lines, f"meshaccel_sockops_{counter}_total", "counter", samples)
    add_relays(lines, sockops["relays"])
    return "\n".join(lines) + "\n"


def add_relays(lines: list[str], relays: Sequence[Mapping[str, Json]]) -> None:
    """Appends what is measured of relays; what has two sides has a label for them."""
    if not relays:
        return
    for name, kind in (("joined", "gauge"), ("waiting", "gauge")):
        values = [(relay, relay[name]) for relay in relays]
        add(lines, f"meshaccel_sockops_relay_{name}", kind, relay_samples(values))
    for name in relays[0]["counters"]:
        values = [(relay, relay["counters"][name]) for relay in relays]
        add(lines, f"meshaccel_sockops_relay_{name}_total", "counter", relay_samples(values))


def relay_samples(values: Iterable[tuple[Mapping[str, Json], Json]]) -> dict[str, int]:
    """Returns the samples of one metric, by the text of their labels."""
    samples: dict[str, int] = {}
    for relay, value in values:
        labels = f'from="{relay["from"]}",to="{relay["to"]}"'
        if isinstance(value, Mapping):
            samples.update({f'{{{labels},side="{side}"}}': count for side, count in value.items()})
        else:
            samples[f"{{{labels}}}"] = value
    return samples


def add(lines: list[str], name: str, kind: str, samples: Mapping[str, int]) -> None:
    """Appends one metric with its samples by label text."""
    if not samples:
        return
    words = PREFIX.sub("", name).replace("_total", "").replace("_", " ")
    lines.append(f"# HELP {name} {HELP.get(name, words.capitalize() + '.')}")
    lines.append(f"# TYPE {name} {kind}")
    lines += [f"{name}{labels} {value}" for labels, value in samples.items()]


def escape(value: str) -> str:
    """Escapes a label value."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
