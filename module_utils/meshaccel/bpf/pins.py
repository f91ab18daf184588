# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the pins of a loaded object lie: maps, links, and programs by their object's digest."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class PinPlaces:
    """The directories below one directory of pins. Several versions' programs may lie side by side."""

    root: str

    @property
    def maps(self) -> str:
        """The directory of pinned maps."""
        return os.path.join(self.root, "maps")

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
