# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the pins of a loaded object lie: maps, links, and programs by their object's digest."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import MeshaccelError
from ..model import Json
from ..system import files
from . import attach, maps
from .objects import BpfObject


@dataclass(frozen=True)
class PinPlaces:
    """The directories below one directory of pins. Several versions' programs may lie side by side."""

    root: str

    @property
    def maps(self) -> str:
        """The directory of pinned maps."""
        return os.path.join(self.root, "maps")

    def map(self, name: str) -> str:
        """The pin of a map."""
        return os.path.join(self.maps, name)

    @property
    def links(self) -> str:
        """The directory of pinned links."""
        return os.path.join(self.root, "links")

    @property
    def versions(self) -> str:
        """The directory with one directory of programs for each object digest."""
        return os.path.join(self.root, "programs")

    def programs(self, digest: str) -> str:
        """The directory of an object's programs."""
        return os.path.join(self.versions, digest)

    def program(self, digest: str, name: str) -> str:
        """The pin of a program."""
        return os.path.join(self.programs(digest), name)

    def maps_complete(self, names: Iterable[str]) -> bool:
        """True when every one of these maps is pinned."""
        return all(os.path.exists(self.map(name)) for name in names)

    def programs_complete(self, digest: str, names: Iterable[str]) -> bool:
        """True when every one of these programs of an object is pinned."""
        return all(os.path.exists(self.program(digest, name)) for name in names)

    def pin_programs(self, loaded: BpfObject, digest: str, names: Iterable[str]) -> None:
        """Pins an object's loaded programs."""
        make_pin_directory(self.programs(digest))
        for name in names:
            maps.pin(loaded.program_descriptor(name), self.program(digest, name))

    @contextmanager
    def opened_maps(self, names: Iterable[str]) -> Iterator[dict[str, int]]:
        """Opens pinned maps, for a version of the programs that is to go on with them."""
        with contextlib.ExitStack() as stack:
            descriptors: dict[str, int] = {}
            for name in names:
                descriptors[name] = maps.open_pin(self.map(name))
                stack.callback(os.close, descriptors[name])
            yield descriptors


def make_pin_directory(path: str) -> None:
    """Creates a directory in bpffs, for root alone; raises NotOurs when something else is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode=0o700)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise files.refuse(path, "a directory of pins")


def remove_tree(path: str) -> None:
    """Unpins everything below a directory of ours, and the directory itself."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)


def map_shape(path: str) -> attach.MapInformation:
    """Returns the shape of a pinned map."""
    descriptor = maps.open_pin(path)
    try:
        return attach.map_information(descriptor)
    finally:
        os.close(descriptor)


def program_id(path: str) -> int:
    """Returns the kernel's id of a pinned program."""
    descriptor = maps.open_pin(path)
    try:
        return attach.program_id(descriptor)
    finally:
        os.close(descriptor)


def cannot_reload(arguments: Mapping[str, Json]) -> None:
    """Stands for a way back that there is none of.

    Raises MeshaccelError, so that the operator learns of it.
    """
    raise MeshaccelError(
        wanted="the version before loaded again",
        found=str(arguments["reason"]),
        remedy="all traffic is on the kernel's path until the next successful run",
    )
