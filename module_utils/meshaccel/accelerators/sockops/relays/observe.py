# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What of the relays is loaded on this node now. Reads, changes nothing."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ....bpf import attach, libbpf, maps
from ....bpf.object_file import ObjectFile
from ....bpf.pins import PinPlaces, program_id
from . import layout
from .desired import Address, Relay

#: What a link's pin ends in: its program. The bounds on memory come before what needs them.
LINKED_PROGRAMS = {
    "limit": layout.LIMIT_PROGRAM,
    "acknowledge": layout.ACKNOWLEDGE_PROGRAM,
    "connection": layout.CONNECTION_PROGRAM,
}
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class Places(PinPlaces):
    """Where the relays' pins are: below those of the accelerator, whose maps they share."""

    accelerator_maps: str

    @classmethod
    def below(cls, accelerator: str) -> Places:
        """Returns the places below the accelerator's directory of pins."""
        return cls(os.path.join(accelerator, "relays"), os.path.join(accelerator, "maps"))

    def map(self, name: str) -> str:
        """The pin of a map, of the relays' own or of the accelerator's that they share."""
        return os.path.join(self.accelerator_maps if name in layout.SHARED_MAPS else self.maps, name)

    def link(self, cgroup_id: int, kind: str) -> str:
        """The pin of a cgroup's link of one kind."""
        return os.path.join(self.links, f"{cgroup_id}_{kind}")


@dataclass(frozen=True)
class Loaded:
    """The loaded version. ``usable`` is False when pins are missing or of another layout."""

    usable: bool
    digest: str = ""
    relays: tuple[Relay, ...] = ()
    #: The cgroups whose accepted connections are looked at.
    cgroup_ids: frozenset[int] = frozenset()
    #: Cgroups with a link whose program is gone, or is not of this version.
    broken_cgroup_ids: frozenset[int] = frozenset()
    #: Versions whose programs an interrupted update left pinned.
    stale_versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """Everything a plan for relays depends on."""

    loaded: Loaded | None = None
    object_file: ObjectFile | None = None


def observe(accelerator_pins: str, object_file: ObjectFile | None, *, mounted: bool) -> Observed:
    """Reads what is loaded of relays; the object is the one that is to run."""
    return Observed(observe_loaded(Places.below(accelerator_pins)) if mounted else None, object_file)


def observe_loaded(places: Places) -> Loaded | None:
    """Reads the pinned maps, programs and links; None when nothing is pinned."""
    if not os.path.isdir(places.root):
        return None
    if not pins_complete(places):
        return Loaded(usable=False)
    digest = read_digest(places)
    if not all(os.path.exists(places.program(digest, name)) for name in layout.PROGRAMS):
        return Loaded(usable=False)
    whole, broken = observe_links(places, digest)
    return Loaded(
        usable=True,
        digest=digest,
        relays=tuple(sorted(read_relays(places).values())),
        cgroup_ids=whole,
        broken_cgroup_ids=broken,
        stale_versions=tuple(sorted(set(names_in(places.versions)) - {digest})),
    )


def pins_complete(places: Places) -> bool:
    """True when every map is pinned, in the layout that this package knows."""
    for name, sizes in layout.MAP_SIZES.items():
        try:
            descriptor = maps.open_pin(places.map(name))
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        try:
            found = attach.map_information(descriptor)
        finally:
            os.close(descriptor)
        if (found.key_size, found.value_size) != sizes:
            return False
    return True


def read_digest(places: Places) -> str:
    """Returns the digest of the running object."""
    with maps.Map.pinned(places.map("relay_version"), ctypes.c_uint32, layout.Version) as version:
        found = version.read(ctypes.c_uint32(0)) or layout.Version()
    return f"{found.object_digest:0{DIGEST_DIGITS}x}"


def read_relays(places: Places) -> dict[int, Relay]:
    """Returns the relays by their index; one that is only half there is left out."""
    with maps.Map.pinned(places.map("relay_addresses"), layout.Address, layout.Place) as addresses:
        entries = addresses.items()
    with maps.Map.pinned(places.map("relay_settings"), ctypes.c_uint32, layout.Setting) as settings:
        used = {key.value for key, setting in settings.items() if setting.generation}
    sides: dict[int, dict[int, Address]] = {}
    for address, place in entries:
        sides.setdefault(place.relay, {})[place.side] = Address(bytes(address.address), address.port)
    return {
        index: Relay(found[0], found[1])
        for index, found in sides.items()
        if index in used and len(found) == layout.SIDES
    }


def observe_links(places: Places, digest: str) -> tuple[frozenset[int], frozenset[int]]:
    """Returns the cgroups whose links are whole, and those with a link that is not."""
    programs = {kind: program_id(places.program(digest, name)) for kind, name in LINKED_PROGRAMS.items()}
    linked: dict[int, set[str]] = {}
    for name in names_in(places.links):
        identifier, _, kind = name.partition("_")
        kinds = linked.setdefault(int(identifier), set())
        descriptor = maps.open_pin(os.path.join(places.links, name))
        try:
            link = attach.link_information(descriptor)
        finally:
            os.close(descriptor)
        if link.cgroup_id == int(identifier) and link.program_id == programs.get(kind):
            kinds.add(kind)
    whole = frozenset(identifier for identifier, kinds in linked.items() if kinds == set(programs))
    return whole, frozenset(linked) - whole


def names_in(directory: str) -> list[str]:
    """Returns a directory's entries; none when somebody removed it."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def describe(relays: Iterable[Relay]) -> list[dict[str, str]]:
    """Returns relays as the diff and the status show them."""
    return [relay.as_dict() for relay in sorted(relays)]
