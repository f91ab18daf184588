# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What relays do now, as plain data."""

from __future__ import annotations

import ctypes

from ....bpf import maps
from ....model import Json
from . import layout
from .observe import Places, pins_complete, read_relays

SIDE_NAMES = ("from", "to")


def relays_status(places: Places) -> list[dict[str, Json]]:
    """Returns each relay with its connections and counters; empty when none is loaded."""
    if not pins_complete(places):
        return []
    joined = joined_pairs(places)
    return [
        {
            **relay.as_dict(),
            "joined": joined.get(index, 0),
            "waiting": waiting(places, index),
            "counters": counters(places, index),
        }
        for index, relay in sorted(read_relays(places).items(), key=lambda entry: entry[1])
    ]


def joined_pairs(places: Places) -> dict[int, int]:
    """Returns how many pairs of connections are joined now, by relay."""
    generations = read_generations(places)
    with maps.Map.pinned(places.map("relay_ends"), ctypes.c_uint64, layout.End) as ends:
        live = [
            end
            for _, end in ends.items()
            if end.partner and end.side == 0 and generations.get(end.relay) == end.generation
        ]
    return {index: sum(end.relay == index for end in live) for index in {end.relay for end in live}}


def waiting(places: Places, index: int) -> dict[str, int]:
    """Returns how many connections of each side wait for one of the other."""
    with maps.Map.pinned(places.map("relay_queues"), ctypes.c_uint32, layout.Queue) as queues:
        queue = queues.read(ctypes.c_uint32(index)) or layout.Queue()
    current = queue.generation == read_generations(places).get(index)
    count = queue.count if current else 0
    return {name: count if queue.side == side else 0 for side, name in enumerate(SIDE_NAMES)}


def read_generations(places: Places) -> dict[int, int]:
    """Returns the generation of each relay in use, by index."""
    with maps.Map.pinned(places.map("relay_settings"), ctypes.c_uint32, layout.Setting) as settings:
        return {key.value: setting.generation for key, setting in settings.items() if setting.generation}


def counters(places: Places, index: int) -> dict[str, Json]:
    """Returns a relay's counters, summed over CPUs; those that have sides, for each."""
    with maps.Map.pinned(places.map("relay_counters"), ctypes.c_uint32, layout.Counters) as table:
        cpus = table.read_per_cpu(ctypes.c_uint32(index))
    result: dict[str, Json] = {}
    for name in layout.SIDED_COUNTER_NAMES:
        result[name] = {
            words: sum(getattr(cpu, name)[side] for cpu in cpus) for side, words in enumerate(SIDE_NAMES)
        }
    for name in layout.COUNTER_NAMES:
        result[name] = sum(getattr(cpu, name) for cpu in cpus)
    return result
