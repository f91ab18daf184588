"""curl as a client of HTTP servers, and what it got told by length and checksum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.peers.bodies import Received, take
from tests.peers.documents import UPLOADS
from tests.support.processes import Placement, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS = 20.0


@dataclass(frozen=True)
class Curl:
    """Where curl runs, a directory for what it downloads, and which certificate it trusts in TLS."""

    place: Placement
    scratch: Path
    certificate: Path | None = None

    def __call__(self, *words: str, seconds: float = SECONDS) -> str:
        """Run curl; return what it writes. Raises ProcessError on any failure, or when time is up."""
        common = ["--silent", "--show-error", "--fail", "--max-time", str(seconds)]
        if self.certificate is not None:
            common += ["--cacert", str(self.certificate)]
        command = ["curl", *common, *words]
        return run(command, self.place, timeout=seconds + SECONDS)

    def fetch(self, server: str, names: Sequence[str], *words: str) -> list[Received]:
        """Download files by one curl, which keeps its connection, and tell what arrived of each."""
        transfers = [
            word for name in names for word in ("--output", str(self.scratch / name), f"{server}/{name}")
        ]
        self(*words, *transfers)
        return [take(self.scratch / name) for name in names]

    def upload(self, server: str, files: Sequence[Path], *words: str) -> None:
        """Store files under their names by one curl, which keeps its connection."""
        target = f"{server}/{UPLOADS}/"
        transfers = [word for path in files for word in ("--upload-file", str(path), target)]
        self(*words, *transfers)


def at(port: int, scheme: str = "http") -> str:
    """Return how the URLs of a server of the pod begin."""
    return f"{scheme}://{ADDRESS}:{port}"
