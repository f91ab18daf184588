# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What sockops is on this node now: kernel, pins, files. Reads, changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ... import holds
from ...bpf import attach, libbpf, maps, ownership
from ...bpf.loaders import Loader
from ...bpf.object_file import ObjectFile
from ...bpf.pins import PinPlaces, map_shape, program_id
from ...errors import InvalidInput
from ...model import Mode
from ...paths import NodePaths
from ...ports import PortRange
from ...system import cgroups, files
from . import NAME, layout
from .denials import table
from .denials.networks import DeniedNetwork
from .denials.observe import Denied, look
from .desired import Desired, load_document
from .object_file import Objects
from .relays import observe as relays


@dataclass(frozen=True)
class Places(PinPlaces):
    """Where sockops keeps its pins."""

    @classmethod
    def of(cls, paths: NodePaths) -> Places:
        """Returns the places of an installation."""
        return cls(os.path.join(paths.pins, NAME))

    def link(self, policy: int) -> str:
        """The pin of the link of a policy's cgroup."""
        return os.path.join(self.links, str(policy))


@dataclass(frozen=True)
class Attachment:
    """A cgroup that the kernel's side knows, by its policy.

    ``path`` is None when the cgroup is gone. ``attached`` is False when the
    policy is there but the program does not run (link unpinned by hand).
    """

    policy: int
    cgroup_id: int
    path: str | None
    mode: Mode
    ports: tuple[PortRange, ...]
    receive_memory_limit: int
    attached: bool


@dataclass(frozen=True)
class Loaded:
    """The loaded version. ``complete`` is False when pins were removed by hand."""

    complete: bool
    digest: str = ""
    mode: Mode = Mode.OFF
    maximum_connections: int = 0
    same_layout: bool = False
    attachments: tuple[Attachment, ...] = ()
    #: Versions whose programs an interrupted update left pinned.
    stale_versions: tuple[str, ...] = ()
    denied_networks: tuple[DeniedNetwork, ...] = ()

    @property
    def usable(self) -> bool:
        """True when this version of the package can switch and update it in place."""
        return self.complete and self.same_layout


@dataclass(frozen=True)
class Observed:
    """Everything a plan depends on."""

    bpffs: ownership.Bpffs
    loaded: Loaded | None
    object_file: ObjectFile | None
    document: bytes | None
    #: Candidate paths that exist: their cgroup ids.
    cgroup_ids: Mapping[str, int]
    hold: holds.Hold = field(default_factory=holds.Hold)
    denied: Denied = field(default_factory=Denied)
    relays: relays.Observed = field(default_factory=relays.Observed)


def observe(
    desired: Desired,
    paths: NodePaths,
    hierarchy: cgroups.Hierarchy,
    objects: Objects,
    *,
    denied: Denied,
) -> Observed:
    """Reads the node's state as far as this wish needs it. What it denies was looked at before.

    Raises InvalidInput, NotOurs or Unsupported when something stands in the way.
    """
    bpffs, places = ownership.observe_bpffs_of(paths, NAME), Places.of(paths)
    candidates = [path for wish in desired.cgroups for path in wish.candidates]
    identifiers = {path: hierarchy.identify(path) for path in candidates}
    existing = {path: found for path, found in identifiers.items() if found is not None}
    return Observed(
        bpffs=bpffs,
        loaded=observe_loaded(places, hierarchy, existing) if bpffs.mounted else None,
        object_file=objects.accelerator,
        document=files.read(paths.desired(NAME)),
        cgroup_ids=existing,
        hold=holds.read(paths, NAME),
        denied=denied,
        relays=relays.observe(places.root, objects.relays, mounted=bpffs.mounted),
    )


def kept_loader(paths: NodePaths) -> Loader:
    """Returns who loads by the wish kept on the node; the default where none is kept or it is damaged."""
    content = files.read(paths.desired(NAME))
    with contextlib.suppress(InvalidInput):
        return load_document(content, paths.desired(NAME)).loader if content else Loader.LIBBPF
    return Loader.LIBBPF


def denied_here(desired: Desired, hierarchy: cgroups.Hierarchy) -> Denied:
    """Looks at what a wish denies, for observe(). Once in a run: it changes by itself.

    Raises InvalidInput or Unsupported when a set cannot be read.
    """
    if not desired.present:
        return Denied()
    candidates = [path for wish in desired.cgroups for path in wish.candidates]
    return look(desired.denials, candidates, hierarchy)


def observe_loaded(places: Places, hierarchy: cgroups.Hierarchy, known: Mapping[str, int]) -> Loaded | None:
    """Reads the pinned maps, programs and links; None when nothing is pinned."""
    if not os.path.isdir(places.root):
        return None
    if not pins_complete(places):
        return Loaded(complete=False, attachments=())
    shapes = {name: map_shape(places.map(name)) for name in layout.MAP_SIZES}
    same = {
        name for name, shape in shapes.items() if (shape.key_size, shape.value_size) == layout.MAP_SIZES[name]
    }
    if "control" not in same:
        # Another release's, or somebody else's: which version this is cannot be read.
        return Loaded(complete=False, attachments=())
    control = read_control(places)
    digest = control.digest
    if not places.programs_complete(digest, layout.programs()):
        return Loaded(complete=False, attachments=())
    same_layout = same == set(shapes)
    return Loaded(
        complete=True,
        digest=digest,
        mode=layout.MODES.get(control.mode, Mode.OFF),
        maximum_connections=shapes["sockets"].maximum_entries // layout.SOCKETS_PER_CONNECTION,
        same_layout=same_layout,
        attachments=observe_attachments(places, digest, hierarchy, known) if same_layout else (),
        stale_versions=tuple(sorted(set(ownership.entries_of(places.versions)) - {digest})),
        denied_networks=table.read(places.maps) if same_layout else (),
    )


def pins_complete(places: Places) -> bool:
    """True when every map is pinned; the programs' place follows from one of them."""
    return places.maps_complete(layout.MAP_SIZES)


def read_control(places: Places) -> layout.Control:
    """Reads the node's control entry."""
    with maps.Map.pinned(places.map("control"), ctypes.c_uint32, layout.Control) as control:
        return control.read(ctypes.c_uint32(0)) or layout.Control()


def observe_attachments(
    places: Places, digest: str, hierarchy: cgroups.Hierarchy, known: Mapping[str, int]
) -> tuple[Attachment, ...]:
    """Reads every policy in use and whether its cgroup runs our program."""
    with maps.Map.pinned(places.map("policies"), ctypes.c_uint32, layout.Policy) as policies:
        used = [(key.value, policy) for key, policy in policies.items() if policy.cgroup_id]
    links = {index: pinned_link(places.link(index)) for index, _ in used}
    paths = {identifier: path for path, identifier in known.items()}
    unknown = {policy.cgroup_id for _, policy in used} - paths.keys()
    if unknown:
        paths.update(hierarchy.paths_of(unknown))
    program = program_id(places.program(digest, "meshaccel_connection"))
    assigned = read_assignments(places, [policy.cgroup_id for _, policy in used])
    return tuple(
        attachment(
            index,
            policy,
            path=paths.get(policy.cgroup_id),
            attached=assigned.get(policy.cgroup_id) == index
            and runs(program, links[index], policy.cgroup_id),
        )
        for index, policy in used
    )


def read_assignments(places: Places, identifiers: list[int]) -> dict[int, int]:
    """Returns the policy index that each attached cgroup's program reads."""
    with maps.Map.pinned(places.map("cgroup_policies"), ctypes.c_uint64, ctypes.c_uint32) as assignments:
        found = {identifier: assignments.read(ctypes.c_uint64(identifier)) for identifier in identifiers}
    return {identifier: index.value for identifier, index in found.items() if index is not None}


def runs(program: int, link: attach.LinkInformation | None, cgroup_id: int) -> bool:
    """True when this very program is attached to the cgroup."""
    return link is not None and link.cgroup_id == cgroup_id and link.program_id == program


def attachment(index: int, policy: layout.Policy, *, path: str | None, attached: bool) -> Attachment:
    """Puts together what is known of one policy."""
    return Attachment(
        policy=index,
        cgroup_id=policy.cgroup_id,
        path=path,
        mode=layout.MODES.get(policy.mode, Mode.OFF),
        ports=tuple(
            PortRange(ports.first, ports.last) for ports in policy.port_ranges[: policy.port_range_count]
        ),
        receive_memory_limit=policy.receive_memory_limit,
        attached=attached,
    )


def pinned_link(path: str) -> attach.LinkInformation | None:
    """Returns what a pinned link links, or None when there is no pin."""
    try:
        descriptor = maps.open_pin(path)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    try:
        return attach.link_information(descriptor)
    finally:
        os.close(descriptor)
