"""A director without a kernel: what the handlers of ipvs_bpf do, and what can then be observed.

Traffic never rests: in every pause sessions begin wherever they can, and what would break one is a violation.
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshaccel.accelerators.ipvs_bpf import kernel_settings, layout, notrack
from meshaccel.accelerators.ipvs_bpf.layout import Masquerade, ProgramMode
from meshaccel.accelerators.ipvs_bpf.state import (
    DeviceState,
    Loaded,
    Observed,
    Program,
    Settings,
    Source,
    Surroundings,
)
from meshaccel.ipvs.model import AddressKey
from meshaccel.model import Mode
from meshaccel.ports import parse_port_range
from tests.unit.ipvs_bpf_scenarios import DOCUMENT, SERVICES
from tests.unit.simulated_accelerator import SimulatedAccelerator, Steps, Versions, Work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from meshaccel.model import Json

UNKNOWN = Settings(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Pins(Versions):
    """What is pinned."""

    maximum_sessions: int
    mode: ProgramMode = ProgramMode.OFF
    settings: Settings = UNKNOWN
    devices: dict[int, Source] = field(default_factory=dict)
    services: dict[AddressKey, Masquerade] = field(default_factory=dict)
    networks: set[layout.IpNetwork] = field(default_factory=set)
    #: Masqueraded sessions that are alive, by the index of the device that they leave by.
    sessions: set[int] = field(default_factory=set)
    #: Whether ports of conntrack's are reserved since the last off.
    reserved: bool = False


@dataclass
class SimulatedDirector(SimulatedAccelerator[Pins]):
    """The whole state of a node."""

    surroundings: Surroundings
    #: By the device's index: the programs at ingress and egress; None where nothing is, clsact alone.
    hooks: dict[int, tuple[Program | None, Program | None]] = field(default_factory=dict)
    table: notrack.Table | None = None

    def copy(self) -> Self:
        """Return a node of its own in the same state."""
        return replace(super().copy(), hooks=dict(self.hooks))

    # ---- what can be seen ----

    def observe(self) -> Observed:
        """Return what a look at this node says."""
        return Observed(
            bpffs=self.bpffs,
            surroundings=self.surroundings,
            loaded=self._loaded() if self.bpffs.mounted else None,
            devices=tuple(self._device(link.index) for link in self.surroundings.links),
            object_file=self.object_file,
            document=self.files.get(DOCUMENT),
            settings=kernel_settings.Observed({}),
            ipvs_loaded=False,
            notrack=notrack.Observed(self.table is not None, self.table),
            hold=self.hold,
        )

    def _device(self, index: int) -> DeviceState:
        link = next(link for link in self.surroundings.links if link.index == index)
        if index not in self.hooks:
            return DeviceState(link)
        ingress, egress = map(self._known, self.hooks[index])
        return DeviceState(link, clsact=True, ingress=ingress, egress=egress)

    def _known(self, program: Program | None) -> Program | None:
        pinned = self.pins is not None and program is not None and program.digest in self.pins.versions
        return program if program is None or pinned else Program("", program.name)

    def _loaded(self) -> Loaded | None:
        pins = self.pins
        if pins is None:
            return None
        if not pins.complete:
            return Loaded(complete=False)
        return Loaded(
            complete=True,
            digest=pins.digest,
            mode=pins.mode,
            settings=pins.settings,
            maximum_sessions=pins.maximum_sessions,
            same_layout=True,
            devices=dict(pins.devices),
            services=dict(pins.services),
            local_networks=frozenset(pins.networks),
            stale_versions=tuple(sorted(pins.versions - {pins.digest})),
        )

    # ---- carrying out ----

    def work_by_kind(self) -> Mapping[str, Work]:
        """Return what carries out an action, step by step, by its kind."""
        return {
            **super().work_by_kind(),
            notrack.KIND: self._nft,
            "ipvs_bpf.load": self._load,
            "ipvs_bpf.unload": self._unload,
            "ipvs_bpf.load_programs": self._load_programs,
            "ipvs_bpf.run_version": self._run_version,
            "ipvs_bpf.discard_programs": self._discard_programs,
            "ipvs_bpf.cannot_reload": self._cannot_reload,
            "ipvs_bpf.write_settings": self._write_settings,
            "ipvs_bpf.write_devices": self._write_devices,
            "ipvs_bpf.write_services": self._write_services,
            "ipvs_bpf.write_networks": self._write_networks,
            "ipvs_bpf.place": self._place,
            "ipvs_bpf.remove_clsact": self._remove_clsact,
            "ipvs_bpf.set_mode": self._set_mode,
            "ipvs_bpf.observe": self._observe,
            "ipvs_bpf.reserve": self._reserve,
            "ipvs_bpf.drain": self._drain,
            "ipvs_bpf.resume": self._resume,
            "ipvs_bpf.forget_flows": self._forget_flows,
            "ipvs_bpf.hold": self._hold,
        }

    def carry_traffic(self) -> None:
        """Begin a session with each service wherever the programs take it; check those that are alive."""
        pins = self.pins
        if pins is None:
            return
        for service in SERVICES:
            if pins.mode is not ProgramMode.ON or service.key not in pins.services:
                continue
            for server in service.servers:
                route = self.surroundings.routes[server.address]
                self._begin_session(pins, route.device_index if route else 0)
        for index in pins.sessions:
            if pins.mode is ProgramMode.OFF:
                continue
            if index not in self.hooks or None in self.hooks[index]:
                self.violations.append(f"a session goes by device {index}, where no program is")

    def _begin_session(self, pins: Pins, index: int) -> None:
        present = any(link.index == index for link in self.surroundings.links)
        if not present or not any(ingress for ingress, _ in self.hooks.values()):
            return
        hook = self.hooks.get(index, (None, None))
        if hook[1] is None:
            self.violations.append(f"a request leaves by device {index} without a program")
        elif index not in pins.devices:
            self.violations.append(f"a request leaves by device {index} without a source address")
        elif self.table is None:
            self.violations.append("what is marked is tracked all the same")
        elif self.table.mask != pins.settings.mark_low | pins.settings.mark_high:
            self.violations.append("programs and nft have different marks")
        elif not pins.reserved:
            self.violations.append("a session may get a port that conntrack has given away")
        else:
            pins.sessions.add(index)

    # ---- nft ----

    def _nft(self, arguments: Mapping[str, Json]) -> Steps:
        script = arguments["script"]
        if "chain" in script:
            marks = notrack.COMMENT.search(script)
            assert marks is not None
            self.table = notrack.Table(int(marks[1], 16), int(marks[2], 16))
        else:
            self.table = None
        yield

    # ---- versions ----

    def _load(self, arguments: Mapping[str, Json]) -> Steps:
        return self._pin(Pins(arguments["digest"], arguments["maximum_sessions"]))

    def _unload(self, _: Mapping[str, Json]) -> Steps:
        if self.pins is None:
            return
        if self.pins.mode is not ProgramMode.OFF and self.pins.complete:
            self.violations.append("unloaded while not off")
        self.pins.all_maps = False
        yield
        self.pins = None
        yield

    def _run_version(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_programs(arguments["digest"]).digest = arguments["digest"]
        yield

    def _discard_programs(self, arguments: Mapping[str, Json]) -> Steps:
        digest = arguments["digest"]
        if any(program and program.digest == digest for hook in self.hooks.values() for program in hook):
            self.violations.append(f"version {digest} discarded while it is attached")
        return super()._discard_programs(arguments)

    # ---- tables ----

    def _write_settings(self, arguments: Mapping[str, Json]) -> Steps:
        pins, settings = self._require_pins(), Settings(**arguments)
        if pins.mode is not ProgramMode.OFF and settings.marks != pins.settings.marks:
            self.violations.append("marks changed while packets carry them")
        pins.settings = settings
        yield

    def _write_devices(self, arguments: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        for index in arguments["remove"]:
            pins.devices.pop(index, None)
            yield
        for index, source in arguments["write"].items():
            pins.devices[int(index)] = parse_source(source)
            yield

    def _write_services(self, arguments: Mapping[str, Json]) -> Steps:
        services = self._require_pins().services
        for key in arguments["remove"]:
            services.pop(AddressKey(*key), None)
            yield
        for *key, masquerade in arguments["write"]:
            services[AddressKey(*key)] = Masquerade(masquerade)
            yield

    def _write_networks(self, arguments: Mapping[str, Json]) -> Steps:
        networks = self._require_pins().networks
        networks -= set(map(ipaddress.ip_network, arguments["remove"]))
        networks |= set(map(ipaddress.ip_network, arguments["write"]))
        yield

    # ---- devices ----

    def _place(self, arguments: Mapping[str, Json]) -> Steps:
        index = arguments["index"]
        for direction in ("egress", "ingress"):
            program = None if arguments[direction] is None else Program(*arguments[direction])
            if program is not None and (self.pins is None or program.digest not in self.pins.versions):
                raise FileNotFoundError(errno.ENOENT, "its pin is gone")
            if program is None and index not in self.hooks:
                continue
            ingress, egress = self.hooks.get(index, (None, None))
            self.hooks[index] = (ingress, program) if direction == "egress" else (program, egress)
            yield

    def _remove_clsact(self, arguments: Mapping[str, Json]) -> Steps:
        if self.hooks.get(arguments["index"]) == (None, None):
            del self.hooks[arguments["index"]]
        yield

    # ---- modes ----

    def _set_mode(self, arguments: Mapping[str, Json]) -> Steps:
        pins, mode = self._require_pins(), ProgramMode(arguments["mode"])
        if mode is ProgramMode.OFF and pins.sessions and self.hold.mode is not Mode.OFF:
            self.violations.append("switched off with sessions alive")
        if mode is ProgramMode.OFF:
            pins.sessions.clear()
            pins.reserved = False
        pins.mode = mode
        yield

    def _observe(self, _: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        pins.mode = ProgramMode.OBSERVE
        yield

    def _reserve(self, _: Mapping[str, Json]) -> Steps:
        self._require_pins().reserved = True
        yield

    def _drain(self, _: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        if pins.mode not in (ProgramMode.DRAIN, ProgramMode.OFF):
            self.violations.append(f"waited for sessions to end in mode {pins.mode.value}")
        yield
        pins.sessions.clear()
        yield

    def _resume(self, arguments: Mapping[str, Json]) -> Steps:
        yield from self._observe(arguments)
        yield from self._reserve(arguments)
        yield from self._set_mode({"mode": "on"})

    def _forget_flows(self, _: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        if pins.mode is not ProgramMode.OFF:
            self.violations.append("flows forgotten while not off")
        pins.sessions.clear()
        pins.reserved = False
        yield


def parse_source(source: Mapping[str, Json]) -> Source:
    """Return what an action writes for a device."""
    ipv4, ipv6 = (
        None if source[family] is None else ipaddress.ip_address(source[family])
        for family in ("ipv4", "ipv6")
    )
    return Source(ipv4, ipv6, parse_port_range(source["ports"]))
