"""What a node has of relays, in memory: the actions of relays are carried out on it step by step."""

from __future__ import annotations

import copy
import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops.relays.desired import Relay, parse_relay
from meshaccel.accelerators.sockops.relays.observe import Loaded, Observed
from meshaccel.bpf.object_file import ObjectFile
from meshaccel.errors import MeshaccelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import NoReturn

    from meshaccel.engine import Handler
    from meshaccel.model import Json

    Steps = Iterator[None]

OBJECT_PATH = "/lib/sockops_relay.bpf.o"


@dataclass
class Pins:
    """What is pinned. A link is the version of the program that it links."""

    digest: str
    all_maps: bool = True
    versions: set[str] = field(default_factory=set)
    links: dict[int, str] = field(default_factory=dict)
    relays: set[Relay] = field(default_factory=set)

    @property
    def usable(self) -> bool:
        return self.all_maps and self.digest in self.versions


@dataclass
class SimulatedRelays:
    """A node's relays. The run fails once, after `fails_after` steps of work."""

    installed: str | None
    pins: Pins | None = None
    fails_after: int | None = None

    def copy(self) -> SimulatedRelays:
        """Return another in the same state."""
        return copy.deepcopy(self)

    def observe(self) -> Observed:
        """Return what a look at this node says."""
        return Observed(self._loaded(), ObjectFile(OBJECT_PATH, self.installed) if self.installed else None)

    def _loaded(self) -> Loaded | None:
        pins = self.pins
        if pins is None:
            return None
        if not pins.usable:
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

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by kind of action."""
        generators: dict[str, Callable[[Mapping[str, Json]], Steps]] = {
            "sockops.relays_load": self._load,
            "sockops.relays_unload": self._unload,
            "sockops.relays_load_programs": self._load_programs,
            "sockops.relays_switch": self._switch,
            "sockops.relays_discard": self._discard,
            "sockops.relays_attach": self._attach,
            "sockops.relays_detach": self._detach,
            "sockops.relays_write": self._write,
            "sockops.cannot_reload": self._cannot_reload,
        }
        return {kind: self._step_by_step(generator) for kind, generator in generators.items()}

    def _step_by_step(self, generator: Callable[[Mapping[str, Json]], Steps]) -> Handler:
        def handler(arguments: Mapping[str, Json]) -> None:
            self._between_steps()
            for _ in generator(arguments):
                self._between_steps()

        return handler

    def _between_steps(self) -> None:
        if self.fails_after is None:
            return
        if self.fails_after == 0:
            self.fails_after = None
            raise OSError(errno.EIO, "injected")
        self.fails_after -= 1

    def _require_pins(self) -> Pins:
        if self.pins is None or not self.pins.all_maps:
            raise FileNotFoundError(errno.ENOENT, "no such pin")
        return self.pins

    def _require_object(self, digest: str) -> None:
        if self.installed != digest:
            raise FileNotFoundError(errno.ENOENT, f"object {digest} is not installed")

    def _load(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_object(arguments["digest"])
        self.pins = Pins(arguments["digest"], all_maps=False)
        yield
        self.pins.all_maps = True
        self.pins.versions.add(arguments["digest"])
        yield

    def _unload(self, _: Mapping[str, Json]) -> Steps:
        if self.pins is not None:
            self.pins.relays.clear()
            yield
            self.pins.links.clear()
            yield
        self.pins = None

    def _load_programs(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_object(arguments["digest"])
        self._require_pins().versions.add(arguments["digest"])
        yield

    def _switch(self, arguments: Mapping[str, Json]) -> Steps:
        pins, digest = self._require_pins(), arguments["digest"]
        if digest not in pins.versions:
            raise FileNotFoundError(errno.ENOENT, f"programs {digest} are not pinned")
        pins.digest = digest
        yield
        for identifier in pins.links:
            pins.links[identifier] = digest
            yield

    def _discard(self, arguments: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        if arguments["digest"] != pins.digest:
            pins.versions.discard(arguments["digest"])
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

    def _cannot_reload(self, arguments: Mapping[str, Json]) -> NoReturn:
        raise MeshaccelError(wanted="what was loaded", found=arguments["reason"], remedy="run again")
