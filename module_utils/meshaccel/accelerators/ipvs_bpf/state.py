# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The words in which observation, resolution and plan speak of ipvs_bpf. Plain data, no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ... import holds
from ...bpf import ownership
from ...bpf.object_file import ObjectFile
from ...ipvs.model import AddressKey, VirtualService
from ...ipvs.timeouts import Timeouts
from ...model import Json
from ...ports import PortRange
from ...system.route_netlink import Link, Route
from ...unit_actions import Unit
from . import kernel_settings, notrack, tencent
from .layout import IpAddress, IpNetwork, Masquerade, ProgramMode


@dataclass(frozen=True)
class Settings:
    """The control entry but for mode and version; seconds, and bits of the packet mark."""

    mark_low: int
    mark_high: int
    mark_accepted: int
    fast_path_seconds: int
    legacy_seconds: int
    tcp_seconds: int
    tcp_closing_seconds: int
    tcp_closed_seconds: int
    udp_seconds: int

    def as_dict(self) -> dict[str, Json]:
        """Returns the settings as plain data."""
        return asdict(self)

    @property
    def marks(self) -> tuple[int, int]:
        """The two bits that programs and nft agree on."""
        return self.mark_low, self.mark_high


@dataclass(frozen=True)
class Source:
    """What replaces clients' addresses at a device; None: nothing can."""

    ipv4: IpAddress | None
    ipv6: IpAddress | None
    ports: PortRange

    def address(self, version: int) -> IpAddress | None:
        """Returns the address of a version."""
        return self.ipv4 if version == 4 else self.ipv6

    def as_dict(self) -> dict[str, Json]:
        """Returns the entry as plain data."""
        return {
            "ipv4": str(self.ipv4) if self.ipv4 else None,
            "ipv6": str(self.ipv6) if self.ipv6 else None,
            "ports": str(self.ports),
        }


@dataclass(frozen=True)
class Program:
    """A program of a version; an empty digest is that of one whose pin is gone."""

    digest: str
    name: str


@dataclass(frozen=True)
class DeviceState:
    """A device and what hangs there: our programs, and in words what others have.

    ``occupant`` has the place of clsact, so that no program can hang there. ``gone``: it
    went since the run began, and what is left of it is the next one's.
    """

    link: Link
    clsact: bool = False
    ingress: Program | None = None
    egress: Program | None = None
    foreign: tuple[str, ...] = ()
    occupant: str = ""
    gone: bool = False

    @property
    def touched(self) -> bool:
        """True when a program of ours hangs there."""
        return self.ingress is not None or self.egress is not None


@dataclass(frozen=True)
class Loaded:
    """The loaded version. ``complete`` is False when pins were removed by hand."""

    complete: bool
    digest: str = ""
    mode: ProgramMode = ProgramMode.OFF
    settings: Settings | None = None
    maximum_sessions: int = 0
    same_layout: bool = False
    #: By the device's index.
    devices: Mapping[int, Source] = field(default_factory=dict)
    services: Mapping[AddressKey, Masquerade] = field(default_factory=dict)
    local_networks: frozenset[IpNetwork] = frozenset()
    #: Versions whose programs an interrupted update left pinned.
    stale_versions: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """True when this version of the package can switch and update it in place."""
        return self.complete and self.same_layout


@dataclass(frozen=True)
class Surroundings:
    """What changes by itself, so it is looked at once in a run: devices, services, routes."""

    links: tuple[Link, ...] = ()
    services: tuple[VirtualService, ...] = ()
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(900, 120, 300))
    #: By the address of a real server; None: no route leads there.
    routes: Mapping[str, Route | None] = field(default_factory=dict)
    #: Names of IPVS's applications by protocol and port: ftp.
    applications: Mapping[tuple[str, int], str] = field(default_factory=dict)
    #: Whether the kernel has nf_conntrack, so that there is something to go past.
    conntrack: bool = True
    #: net.ipv4.ip_local_port_range.
    local_ports: PortRange = field(default_factory=lambda: PortRange(32768, 60999))


@dataclass(frozen=True)
class Observed:
    """Everything a plan depends on."""

    bpffs: ownership.Bpffs
    surroundings: Surroundings
    loaded: Loaded | None = None
    devices: tuple[DeviceState, ...] = ()
    object_file: ObjectFile | None = None
    document: bytes | None = None
    #: IPVS's kernel settings; in ``settings_before`` is the file with those from before ours.
    settings: kernel_settings.Observed = field(default_factory=lambda: kernel_settings.Observed({}))
    settings_before: bytes | None = None
    ipvs_loaded: bool = True
    tencent: tencent.Observed = field(default_factory=tencent.Observed)
    notrack: notrack.Observed = field(default_factory=notrack.Observed)
    hold: holds.Hold = field(default_factory=holds.Hold)
    #: None without systemd.
    follow_unit: Unit | None = None

    @property
    def occupied(self) -> dict[int, str]:
        """The devices where somebody has the place of clsact, by their index: who."""
        return {state.link.index: state.occupant for state in self.devices if state.occupant}
