"""What a node has of relays, in memory: the actions of relays are carried out on it step by step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops.relays.desired import Relay, parse_relay
from meshaccel.accelerators.sockops.relays.observe import Loaded, Observed
from tests.unit.simulated_accelerator import SimulatedPrograms, Steps, Versions, Work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from meshaccel.model import Json


@dataclass
class Pins(Versions):
    """What is pinned. A link is the version of the program that it links."""

    links: dict[int, str] = field(default_factory=dict)
    relays: set[Relay] = field(default_factory=set)


@dataclass
class SimulatedRelays(SimulatedPrograms[Pins]):
    """A node's relays."""

    def copy(self) -> Self:
        """Return another in the same state."""
        return copy.deepcopy(self)

    def observe(self) -> Observed:
        """Return what a look at this node says."""
        return Observed(self._loaded(), self.object_file)

    def _loaded(self) -> Loaded | None:
        pins = self.pins
        if pins is None:
            return None
        if not pins.complete:
            return Loaded(usable=False)
        whole = frozenset(found for found, version in pins.links.items() if version == pins.digest)
        return Loaded(
            usable=True,
            digest=pins.digest,
            relays=tuple(sorted(pins.relays)),
            cgroup_ids=whole,
            broken_cgroup_ids=frozenset(pins.links) - whole,
            stale_versions=tuple(sorted(pins.versions - {pins.digest})),
        )

    def work_by_kind(self) -> Mapping[str, Work]:
        """Return what carries out an action, step by step, by its kind."""
        return {
            "sockops.relays_load": self._load,
            "sockops.relays_unload": self._unload,
            "sockops.relays_load_programs": self._load_programs,
            "sockops.relays_switch": self._switch,
            "sockops.relays_discard": self._discard_programs,
            "sockops.relays_attach": self._attach,
            "sockops.relays_detach": self._detach,
            "sockops.relays_write": self._write,
            "sockops.cannot_reload": self._cannot_reload,
        }

    def _load(self, arguments: Mapping[str, Json]) -> Steps:
        return self._pin(Pins(arguments["digest"]))

    def _unload(self, _: Mapping[str, Json]) -> Steps:
        if self.pins is not None:
            self.pins.relays.clear()
            yield
            self.pins.links.clear()
            yield
        self.pins = None

    def _switch(self, arguments: Mapping[str, Json]) -> Steps:
        digest = arguments["digest"]
        pins = self._require_programs(digest)
        pins.digest = digest
        yield
        for identifier in pins.links:
            pins.links[identifier] = digest
            yield

    def _attach(self, arguments: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        pins.links[arguments["cgroup_id"]] = pins.digest
        yield

    def _detach(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_pins().links.pop(arguments["cgroup_id"], None)
        yield

    def _write(self, arguments: Mapping[str, Json]) -> Steps:
        pins, wished = self._require_pins(), set(map(parse_relay, arguments["relays"]))
        pins.relays &= wished
        yield
        pins.relays |= wished
        yield
