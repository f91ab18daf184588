# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The BPF objects of sockops: its own, and the one for relays."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...bpf.loaders import Loader
from ...bpf.object_file import ObjectFile, expected_or_installed

RELAYS = "sockops_relay"


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
