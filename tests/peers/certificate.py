"""A certificate for the servers of a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.support.processes import run

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        """Make one that signs itself, for the address of the servers."""
        made = cls(directory / "certificate.pem", directory / "key.pem")
        subject = ["-subj", f"/CN={ADDRESS}", "-addext", f"subjectAltName=IP:{ADDRESS}"]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
        files = ["-keyout", str(made.key), "-out", str(made.certificate)]
        run(["openssl", "req", "-x509", *kind, *subject, *files])
        return made
