# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The BPF objects of an installed release, as far as plans and loading need to know them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ...bpf.loaders import Loader
from ...errors import NotOurs
from ...model import Json
from . import layout

RELAYS = "sockops_relay"


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


@dataclass(frozen=True)
class Objects:
    """The objects that are to run, installed or not; None where there is none."""

    accelerator: ObjectFile | None
    relays: ObjectFile | None

    @classmethod
    def find(cls, path: str, digest: str | None, relays_digest: str | None, loader: Loader) -> Objects:
        """Returns the object at a path and the relays' beside it, by their files' expected digests.

        Without a digest the installed object is meant.
        """
        relays_path = os.path.join(os.path.dirname(path), f"{RELAYS}.bpf.o")
        return cls(
            expected_or_installed(path, digest, loader),
            expected_or_installed(relays_path, relays_digest, loader),
        )


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
    digest = hashlib.sha256(content).hexdigest()[: layout.DIGEST_BYTES * 2]
    return ObjectFile(path, loader.identity(digest), loader)
