# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out the actions of sockops on the kernel.

Every handler accepts that its work is already done or half done: an undo may
follow an action that failed in the middle.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ... import file_actions, holds
from ...bpf import attach, libbpf, maps, ownership
from ...bpf.loaders import Loader
from ...bpf.object_file import ObjectFile, not_permitted
from ...bpf.objects import BpfObject
from ...bpf.ownership import opened
from ...bpf.pins import cannot_reload, make_pin_directory, remove_tree
from ...engine import Handler
from ...errors import MeshaccelError, Unsupported
from ...model import Json, Mode
from ...paths import NodePaths
from ...system import cgroups, files
from . import NAME, layout
from .observe import Places, read_control

RELEASE_DONE = 1
RELEASE_QUEUE_NOT_EMPTY = 2
RELEASE_PAUSE_SECONDS = 0.2
ZERO = 0
#: What is tried, in this order. The casts are functions that only libbpf finds in the kernel.
USE_CASTS = {Loader.LIBBPF: (1, 0), Loader.BCC: (0,)}


NO_RELEASE = (
    "this kernel has no BTF, so connections that were accelerated keep their place in the table until they "
    "close, and go by TCP"
)


class Handlers:
    """The handlers of one run. ``notes`` collects what the operator should know."""

    def __init__(self, paths: NodePaths, hierarchy: cgroups.Hierarchy) -> None:
        """Binds the handlers to an installation."""
        self.notes: list[str] = []
        self._paths = paths
        self._places = Places.of(paths)
        self._hierarchy = hierarchy

    def table(self) -> Mapping[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            **ownership.mount_handlers(self._paths),
            **file_actions.handlers(),
            **holds.handlers(self._paths, NAME),
            "sockops.load": self.load,
            "sockops.unload": self.unload,
            "sockops.load_programs": self.load_programs,
            "sockops.switch_programs": self.switch_programs,
            "sockops.discard_programs": self.discard_programs,
            "sockops.set_mode": self.set_mode,
            "sockops.write_policy": self.write_policy,
            "sockops.clear_policy": self.clear_policy,
            "sockops.attach": self.attach,
            "sockops.detach": self.detach,
            "sockops.release": self.release,
            "sockops.adopt": self.adopt,
            "sockops.cannot_reload": cannot_reload,
        }

    # ---- loading ----

    def load(self, arguments: Mapping[str, Json]) -> None:
        """Loads the object, switched off, and pins all of it."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        if os.path.isdir(self._places.root):
            self.unload({})
        self._make_directories()
        sockets = int(arguments["maximum_connections"]) * layout.SOCKETS_PER_CONNECTION
        sizes = dict.fromkeys(("sockets", "socket_slots", "ends"), sockets)
        with loaded_object(wished, sizes) as loaded:
            for name in layout.MAP_SIZES:
                maps.pin(loaded.map_descriptor(name), self._places.map(name))
            self._places.pin_programs(loaded, wished.digest, layout.programs())
        self._install_message_programs(wished.digest)
        self._write_control(Mode.OFF, wished.digest)

    def load_programs(self, arguments: Mapping[str, Json]) -> None:
        """Loads another version's programs on the maps there are."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        self.discard_programs({"digest": wished.digest})
        with self._places.opened_maps(layout.MAP_SIZES) as reused:
            with loaded_object(wished, {}, reused) as loaded:
                self._places.pin_programs(loaded, wished.digest, layout.programs())

    def switch_programs(self, arguments: Mapping[str, Json]) -> None:
        """Puts a loaded version in the place of the running one.

        The tail-call table reaches live sockets; new ones get the new entry
        program; a link is swapped without a moment unattached.
        """
        digest = str(arguments["digest"])
        self._install_message_programs(digest)
        with self._program(digest, "meshaccel_connection") as program:
            for index in ownership.entries_of(self._places.links):
                with opened(self._places.link(int(index))) as link:
                    # The link of a cgroup that is gone has no program any more.
                    if attach.link_information(link).cgroup_id:
                        attach.update_link(link, program)
        self._write_control(self._mode(), digest)

    def discard_programs(self, arguments: Mapping[str, Json]) -> None:
        """Unpins a version's programs; the running version's stay."""
        digest = str(arguments["digest"])
        if digest != self._digest():
            remove_tree(self._places.programs(digest))

    def unload(self, _: Mapping[str, Json]) -> None:
        """Detaches from every cgroup and removes every pin.

        Sockets that still hold redirected bytes keep their place in the maps,
        and so the maps, until they close; the kernel then frees both.
        """
        # Maps first: killed from here on, the pins that are left are known to be no whole version.
        remove_tree(self._places.maps)
        remove_tree(self._places.root)
        files.remove_empty_directory(self._paths.pins)

    # ---- modes and policies ----

    def set_mode(self, arguments: Mapping[str, Json]) -> None:
        """Writes the node's switch, unless an operator holds it since the plan was made."""
        held = holds.read(self._paths, NAME).mode
        self.write_mode(held or Mode(arguments["mode"]))

    def write_mode(self, mode: Mode) -> None:
        """Writes the node's switch: one map write, and every message sees it."""
        self._write_control(mode, self._digest())

    def write_policy(self, arguments: Mapping[str, Json]) -> None:
        """Writes one cgroup's policy."""
        policy = layout.Policy(
            cgroup_id=int(arguments["cgroup_id"]),
            mode=layout.MODE_NUMBERS[Mode(arguments["mode"])],
            receive_memory_limit=int(arguments["receive_memory_limit"]),
            port_range_count=len(arguments["ports"]),
        )
        for index, (first, last) in enumerate(arguments["ports"]):
            policy.port_ranges[index] = layout.PortRange(first, last)
        with self._policies() as policies:
            policies.write(ctypes.c_uint32(int(arguments["policy"])), policy)

    def clear_policy(self, arguments: Mapping[str, Json]) -> None:
        """Frees one cgroup's policy; mode off, no cgroup."""
        with self._policies() as policies:
            policies.write(ctypes.c_uint32(int(arguments["policy"])), layout.Policy())

    # ---- cgroups ----

    def attach(self, arguments: Mapping[str, Json]) -> None:
        """Attaches to a cgroup, then tells the program there which policy is its own.

        Until that second step the program finds policy 0, which is never on.
        """
        index, path = int(arguments["policy"]), self._hierarchy.absolute(str(arguments["path"]))
        with self._program(self._digest(), "meshaccel_connection") as program:
            self._attach_program(program, path, self._places.link(index))
        self._assign(int(arguments["cgroup_id"]), index)

    def detach(self, arguments: Mapping[str, Json]) -> None:
        """Detaches from a cgroup and frees its policy.

        What the cgroup's program reads as its policy outlives the attachment in
        the kernel, so it is set back before somebody else gets the index.
        """
        index = int(arguments["policy"])
        self._assign(int(arguments["cgroup_id"]), layout.UNCONFIGURED_POLICY)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._places.link(index))
        self.clear_policy({"policy": index})

    def adopt(self, arguments: Mapping[str, Json]) -> None:
        """Takes over live connections; what came of it, or why not, is a note for the operator."""
        # Reading sockets costs imports that a run without changes has no use for.
        from .adoption.service import adopt_live_connections

        try:
            report = adopt_live_connections(ObjectFile.given(arguments), self._places, self._hierarchy)
        except (MeshaccelError, libbpf.BpfError) as error:
            self.notes.append(f"live connections stay on TCP: {error}")
            return
        self.notes.append(str(report))

    def release(self, arguments: Mapping[str, Json]) -> None:
        """Gives switched-off sockets back to TCP, waiting for readers.

        What is not read by the deadline stays readable: such a socket goes on by
        TCP and keeps its queue; a note says how many there are.
        """
        if not os.path.exists(self._places.program(self._digest(), "meshaccel_release")):
            self._note_who_stays()
            return
        time.sleep(float(arguments["settle_seconds"]))
        deadline = time.monotonic() + float(arguments["deadline_seconds"])
        while True:
            waiting = self._release_pass().count(RELEASE_QUEUE_NOT_EMPTY)
            if not waiting:
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(RELEASE_PAUSE_SECONDS)
        self.notes.append(
            f"{waiting} sockets hold redirected bytes that their program has not read; "
            "they stay readable, and the kernel frees what is left when they close"
        )

    # ---- inside ----

    def _note_who_stays(self) -> None:
        with maps.Map.pinned(self._places.map("sockets"), ctypes.c_uint64, ctypes.c_uint64) as sockets:
            if next(sockets.keys(), None) is not None:
                self.notes.append(NO_RELEASE)

    def _release_pass(self) -> list[int]:
        release = self._program(self._digest(), "meshaccel_release")
        with release as program, opened(self._places.map("sockets")) as sockets:
            output = attach.run_map_iterator(program, sockets)
        return [outcome for (outcome,) in struct.iter_unpack("=I", output)]

    def _make_directories(self) -> None:
        for path in (self._paths.pins, self._places.root, self._places.maps):
            make_pin_directory(path)
        for path in (self._places.links, self._places.versions):
            make_pin_directory(path)

    def _install_message_programs(self, digest: str) -> None:
        table = maps.Map.pinned(self._places.map("message_logic"), ctypes.c_uint32, ctypes.c_uint32)
        with table, self._program(digest, "meshaccel_message_logic") as logic:
            table.write(ctypes.c_uint32(ZERO), ctypes.c_uint32(logic))
        message = self._program(digest, "meshaccel_message")
        with message as program, opened(self._places.map("sockets")) as sockets:
            attach.attach_to_socket_map(program, sockets)

    def _attach_program(self, program: int, path: str, pin: str) -> None:
        if os.path.exists(pin):
            with opened(pin) as link:
                if attach.link_information(link).cgroup_id:
                    attach.update_link(link, program)
                    return
            os.unlink(pin)
        link = attach.link_cgroup(program, path)
        try:
            maps.pin(link, pin)
        finally:
            os.close(link)

    def _assign(self, cgroup_id: int, index: int) -> None:
        """Tells the program in a cgroup its policy; fine when it is not attached."""
        with maps.Map.pinned(
            self._places.map("cgroup_policies"), ctypes.c_uint64, ctypes.c_uint32
        ) as assignments:
            key = ctypes.c_uint64(cgroup_id)
            if assignments.read(key) is not None:
                assignments.write(key, ctypes.c_uint32(index))

    def _policies(self) -> maps.Map[ctypes.c_uint32, layout.Policy]:
        return maps.Map.pinned(self._places.map("policies"), ctypes.c_uint32, layout.Policy)

    def _digest(self) -> str:
        return read_control(self._places).digest

    def _mode(self) -> Mode:
        return layout.MODES[read_control(self._places).mode]

    def _write_control(self, mode: Mode, digest: str) -> None:
        entry = layout.Control(mode=layout.MODE_NUMBERS[mode], object_digest=int(digest, 16))
        with maps.Map.pinned(self._places.map("control"), ctypes.c_uint32, layout.Control) as control:
            control.write(ctypes.c_uint32(ZERO), entry)

    @contextmanager
    def _program(self, digest: str, name: str) -> Iterator[int]:
        with opened(self._places.program(digest, name)) as descriptor:
            yield descriptor


@contextmanager
def loaded_object(
    wished: ObjectFile, sizes: Mapping[str, int], reused: Mapping[str, int] | None = None
) -> Iterator[BpfObject]:
    """Loads the object with the fastest way to a peer that the verifier takes.

    Raises Unsupported with the end of the verifier's log when it takes neither.
    """
    failures: list[str] = []
    path = wished.path
    for use_casts in USE_CASTS[wished.loader]:
        with wished.loader.open(path) as candidate:
            candidate.set_constants({"use_casts": use_casts})
            for name, entries in sizes.items():
                candidate.set_maximum_entries(name, entries)
            for name, descriptor in (reused or {}).items():
                candidate.reuse_map(name, descriptor)
            try:
                candidate.load()
            except libbpf.BpfError as error:
                if error.errno == errno.EPERM:
                    raise not_permitted(path, error) from error
                failures.append(str(error))
                continue
            yield candidate
            return
    raise Unsupported(
        wanted=f"the kernel to load {path}",
        found=failures[-1],
        remedy="node_capabilities says what this kernel lacks; 6.1 and newer are known to do; "
        "one without BTF does with sockops_loader bcc",
    )
