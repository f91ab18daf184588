# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out the plan of a declared program, and takes it back exactly.

What a run unpins or swaps stays open until the run ends. The kernel keeps what
is open, a link even attached; so the way back pins the very same object again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping

from ...engine import Handler
from ...errors import MeshaccelError
from ...model import Json
from ...paths import NodePaths
from ...system import cgroups
from .. import attach, libbpf, maps, ownership
from ..objects import BpfObject
from .desired import Places
from .loading import Source, loaded


class Handlers:
    """The handlers of one run, and what they hold open for the way back."""

    def __init__(self, paths: NodePaths, places: Places, stack: contextlib.ExitStack) -> None:
        self._paths = paths
        self._places = places
        self._stack = stack
        self._loaded: tuple[BpfObject, str] | None = None
        #: By path: what was pinned there before this run.
        self._pinned: dict[str, int] = {}
        #: By the path of the link: the program that it ran before this run.
        self._ran: dict[str, int] = {}

    def table(self) -> Mapping[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            **ownership.mount_handlers(self._paths),
            "bpf_program.load": self.load,
            "bpf_program.pin": self.pin,
            "bpf_program.unpin": self.unpin,
            "bpf_program.restore_pin": self.restore_pin,
            "bpf_program.attach": self.attach,
            "bpf_program.update_link": self.update_link,
            "bpf_program.restore_link": self.restore_link,
        }

    def load(self, arguments: Mapping[str, Json]) -> None:
        """Loads the program; it goes away with this run unless it is pinned."""
        source = Source(
            str(arguments["object"]),
            str(arguments["program"]),
            arguments["maximum_entries"],
            arguments["constants"],
        )
        reused = {name: self._open(path) for name, path in arguments["reuse"].items()}
        self._loaded = (self._stack.enter_context(loaded(source, reused)), source.program)

    def pin(self, arguments: Mapping[str, Json]) -> None:
        """Pins the loaded program or a map of it, in the place of what was pinned there."""
        if self._loaded is None:
            raise MeshaccelError(
                wanted=f"to pin {arguments['path']}",
                found="nothing loaded in this run",
                remedy="this plan is out of order; report it",
            )
        found, program = self._loaded
        name, path = arguments["map"], str(arguments["path"])
        self._keep(path)
        descriptor = found.program_descriptor(program) if name is None else found.map_descriptor(name)
        self._put(descriptor, path)

    def unpin(self, arguments: Mapping[str, Json]) -> None:
        """Removes a pin; nothing there is fine."""
        path = str(arguments["path"])
        if self._keep(path):
            os.unlink(path)
            ownership.remove_empty_directories(self._paths, path)

    def restore_pin(self, arguments: Mapping[str, Json]) -> None:
        """Pins again what was pinned before this run."""
        path = str(arguments["path"])
        if path in self._pinned:
            self._put(self._pinned[path], path)

    def attach(self, arguments: Mapping[str, Json]) -> None:
        """Attaches the pinned program to a cgroup by a link, and pins the link."""
        cgroup = cgroups.hierarchy().absolute(str(arguments["cgroup"]))
        with ownership.opened(str(arguments["program"])) as program:
            link = attach.link_cgroup(program, cgroup, int(arguments["attach_type"]))
        try:
            self._put(link, str(arguments["link"]))
        finally:
            os.close(link)

    def update_link(self, arguments: Mapping[str, Json]) -> None:
        """Swaps the program of a link; there is no moment with neither."""
        path = str(arguments["link"])
        with ownership.opened(path) as link, ownership.opened(str(arguments["program"])) as program:
            ran = attach.open_program(attach.link_information(link).program_id)
            self._stack.callback(os.close, ran)
            self._ran[path] = ran
            attach.update_link(link, program)

    def restore_link(self, arguments: Mapping[str, Json]) -> None:
        """Swaps the program back that a link ran before this run."""
        path = str(arguments["link"])
        if path in self._ran:
            with ownership.opened(path) as link:
                attach.update_link(link, self._ran[path])

    def _open(self, path: str) -> int:
        """Opens a pin until the run ends."""
        descriptor = maps.open_pin(path)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def _keep(self, path: str) -> bool:
        """Holds what is pinned at a path, the first time only; False when nothing is there."""
        try:
            descriptor = self._open(path)
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        self._pinned.setdefault(path, descriptor)
        return True

    def _put(self, descriptor: int, path: str) -> None:
        """Pins, by rename where something is pinned already: readers find old or new."""
        ownership.make_directories(self._paths, path)
        if not os.path.lexists(path):
            maps.pin(descriptor, path)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._places.staged)
        maps.pin(descriptor, self._places.staged)
        os.rename(self._places.staged, path)
