# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The BPF objects of an installed release, as far as plans and loading need to know them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from ...errors import NotOurs
from . import layout

RELAYS = "sockops_relay"


@dataclass(frozen=True)
class ObjectFile:
    """The object that is to run. ``digest`` is 16 hexadecimal digits."""

    path: str
    digest: str


@dataclass(frozen=True)
class Objects:
    """The objects that are to run, installed or not; None where there is none."""

    accelerator: ObjectFile | None
    relays: ObjectFile | None

    @classmethod
    def find(cls, path: str, digest: str | None, relays_digest: str | None) -> Objects:
        """Returns the object at a path and the relays' beside it, by their expected digests.

        Without a digest the installed object is meant.
        """
        relays_path = os.path.join(os.path.dirname(path), f"{RELAYS}.bpf.o")
        return cls(expected_or_installed(path, digest), expected_or_installed(relays_path, relays_digest))


def expected_or_installed(path: str, expected_digest: str | None) -> ObjectFile | None:
    """Returns the expected object, installed or not; without one, the installed one or None."""
    return ObjectFile(path, expected_digest) if expected_digest else observe_object(path)


def observe_object(path: str) -> ObjectFile | None:
    """Hashes the installed object; None when there is none."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return None
    return ObjectFile(path, hashlib.sha256(content).hexdigest()[: layout.DIGEST_BYTES * 2])


def check_digest(path: str, digest: str) -> None:
    """Checks that an object file is the one the plan was made for; raises NotOurs."""
    found = observe_object(path)
    if found is None or found.digest != digest:
        raise NotOurs(
            wanted=f"the BPF object {digest} at {path}",
            found=found.digest if found else "no such file",
            remedy="run the role node_runtime first (playbooks/site.yml does)",
        )
