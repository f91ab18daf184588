# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""A BPF object of an installed release, as far as plans and loading need to know them."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import NotOurs, Unsupported
from ..model import Json
from . import layouts, libbpf
from .loaders import Loader

#: Of a digest of 8 bytes, which the programs carry.
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class ObjectFile:
    """The object that is to run, and who loads it.

    ``digest`` is of 16 hexadecimal digits and stands for both, see Loader.identity().
    """

    path: str
    digest: str
    loader: Loader = Loader.LIBBPF

    @classmethod
    def given(cls, arguments: Mapping[str, Json]) -> ObjectFile:
        """Returns the object that an action's arguments name."""
        return cls(str(arguments["object"]), str(arguments["digest"]), Loader(arguments["loader"]))

    def __str__(self) -> str:
        return self.digest if self.loader is Loader.LIBBPF else f"{self.digest} ({self.loader.value})"

    def arguments(self) -> dict[str, Json]:
        """Returns what names this object in an action's arguments."""
        return {"object": self.path, "digest": self.digest, "loader": self.loader.value}

    def check(self) -> None:
        """Checks that the file is the one the plan was made for; raises NotOurs."""
        found = observe_object(self.path, self.loader)
        if found != self:
            raise NotOurs(
                wanted=f"the BPF object {self.digest} at {self.path}, for {self.loader.value}",
                found=found.digest if found else "no such file",
                remedy="run the role node_runtime first (playbooks/site.yml does)",
            )

    def check_layout(self, structures: dict[str, type[ctypes.Structure]]) -> None:
        """Checks the file, and that it has the structures we declare; raises NotOurs or MeshaccelError."""
        self.check()
        layouts.check(self.path, structures)


def expected_or_installed(path: str, expected_digest: str | None, loader: Loader) -> ObjectFile | None:
    """Returns the expected object, installed or not; without one, the installed one or None."""
    if expected_digest:
        return ObjectFile(path, loader.identity(expected_digest), loader)
    return observe_object(path, loader)


def observe_object(path: str, loader: Loader) -> ObjectFile | None:
    """Hashes the installed object; None when there is none."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return None
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
    return ObjectFile(path, loader.identity(digest), loader)


def require_object(object_file: ObjectFile | None, accelerator: str) -> ObjectFile:
    """Returns the object that is to run; raises Unsupported when it is not installed."""
    if object_file is None:
        raise Unsupported(
            wanted=f"the BPF object of {accelerator} on the node",
            found="none installed",
            remedy="run the role node_runtime first (playbooks/site.yml does)",
        )
    return object_file


def not_permitted(path: str, error: libbpf.BpfError) -> Unsupported:
    """Builds the error for a process that may not load programs."""
    return Unsupported(
        wanted=f"to load {path}",
        found=f"{error.strerror}",
        remedy="run as root with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    )
