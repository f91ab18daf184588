"""What the HTTP servers of these tests serve and store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.bodies import Received, body, take

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UPLOADS = "uploads"


@dataclass(frozen=True)
class Documents:
    """A directory with a file of each length, named after it, and a place for uploads."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, lengths: Iterable[int]) -> Documents:
        """Write the files into an empty directory."""
        (directory / UPLOADS).mkdir()
        for length in lengths:
            (directory / str(length)).write_bytes(body(length))
        return cls(directory)

    def path(self, length: int) -> Path:
        """Return the file of a length."""
        return self.directory / str(length)

    def take_upload(self, name: str) -> Received:
        """Tell what was stored under a name, and remove it."""
        return take(self.directory / UPLOADS / name)
