# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what plan.py plans for versions of the programs: loads, swaps and unloads them."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ...bpf import libbpf, maps
from ...bpf.object_file import ObjectFile, not_permitted
from ...bpf.objects import BpfObject
from ...bpf.ownership import opened
from ...bpf.pins import PinPlaces, cannot_reload, make_pin_directory, remove_tree
from ...engine import Handler
from ...errors import Unsupported
from ...model import Json
from ...paths import NodePaths
from ...system import files
from . import layout
from .control import change_control
from .observe import ONLY, read_control


class VersionHandlers:
    """The handlers of what is pinned, but for the entries of maps."""

    def __init__(self, paths: NodePaths, pins: PinPlaces) -> None:
        """Binds the handlers to an installation."""
        self._paths = paths
        self._pins = pins

    def table(self) -> dict[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            "ipvs_bpf.load": self.load,
            "ipvs_bpf.unload": self.unload,
            "ipvs_bpf.load_programs": self.load_programs,
            "ipvs_bpf.run_version": self.run_version,
            "ipvs_bpf.discard_programs": self.discard_programs,
            "ipvs_bpf.cannot_reload": cannot_reload,
        }

    def load(self, arguments: Mapping[str, Json]) -> None:
        """Loads the object, switched off, and pins all of it."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        self.unload({})
        for path in (self._paths.pins, self._pins.root, self._pins.maps, self._pins.versions):
            make_pin_directory(path)
        sizes = {"flows": int(arguments["maximum_sessions"]) * layout.FLOWS_PER_SESSION}
        with loaded_object(wished, sizes, {}) as (loaded, programs):
            for name in layout.MAP_SIZES:
                maps.pin(loaded.map_descriptor(name), self._pins.map(name))
            self._pins.pin_programs(loaded, wished.digest, programs)
        self.run_version({"digest": wished.digest})

    def load_programs(self, arguments: Mapping[str, Json]) -> None:
        """Loads another version's programs on the maps there are."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        self.discard_programs({"digest": wished.digest})
        with self._pins.opened_maps(layout.MAP_SIZES) as reused:
            with loaded_object(wished, {}, reused) as (loaded, programs):
                self._pins.pin_programs(loaded, wished.digest, programs)

    def run_version(self, arguments: Mapping[str, Json]) -> None:
        """Has flows age by a version's program, and says that it is the one to attach."""
        digest = str(arguments["digest"])
        ageing = self._pins.program(digest, layout.AGEING_PROGRAM)
        table = maps.Map.pinned(self._pins.map("ageing"), ctypes.c_uint32, ctypes.c_uint32)
        with table:
            if os.path.exists(ageing):
                with opened(ageing) as program:
                    table.write(ONLY, ctypes.c_uint32(program))
            else:
                table.delete(ONLY)
        change_control(self._pins, object_digest=int(digest, 16))

    def discard_programs(self, arguments: Mapping[str, Json]) -> None:
        """Unpins a version's programs; the running version's stay."""
        digest = str(arguments["digest"])
        if digest != read_control(self._pins).digest:
            remove_tree(self._pins.programs(digest))

    def unload(self, _: Mapping[str, Json]) -> None:
        """Removes every pin. What is still attached keeps its programs, without a switch."""
        # Maps first: killed from here on, the pins that are left are known to be no whole version.
        remove_tree(self._pins.maps)
        remove_tree(self._pins.root)
        files.remove_empty_directory(self._paths.pins)


@contextmanager
def loaded_object(
    wished: ObjectFile, sizes: Mapping[str, int], reused: Mapping[str, int]
) -> Iterator[tuple[BpfObject, tuple[str, ...]]]:
    """Loads the object, and gives it with the programs that this kernel takes.

    The one that has flows age needs bpf_timer (Linux 5.15), the others do without.
    Raises Unsupported with the end of the verifier's log when it takes not even those.
    """
    failures: list[str] = []
    for programs in ((*layout.PROGRAMS, layout.AGEING_PROGRAM), layout.PROGRAMS):
        with wished.loader.open(wished.path) as candidate:
            if layout.AGEING_PROGRAM not in programs:
                candidate.leave_out(layout.AGEING_PROGRAM)
            for name, entries in sizes.items():
                candidate.set_maximum_entries(name, entries)
            for name, descriptor in reused.items():
                candidate.reuse_map(name, descriptor)
            try:
                candidate.load()
            except libbpf.BpfError as error:
                if error.errno == errno.EPERM:
                    raise not_permitted(wished.path, error) from error
                failures.append(str(error))
                continue
            yield candidate, programs
            return
    raise Unsupported(
        wanted=f"the kernel to load {wished.path}",
        found=failures[-1],
        remedy="node_capabilities says what this kernel lacks; 6.1 and newer are known to do",
    )
