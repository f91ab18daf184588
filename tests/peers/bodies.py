"""Payloads that both ends of a test can make, and how what arrived of them is told."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


def body(length: int) -> bytes:
    """Return the payload of a length: always the same bytes, and others for every length."""
    return random.Random(length).randbytes(length)


@dataclass(frozen=True)
class Received:
    """A payload that arrived."""

    length: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Received:
        """Tell a payload."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


def expected(length: int) -> Received:
    """Return what an undamaged payload of this length is told as."""
    return Received.of(body(length))


def told(path: Path) -> Received:
    """Tell the content of a file."""
    with path.open("rb") as content:
        return Received(path.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())


def take(path: Path) -> Received:
    """Tell the content of a file and remove it."""
    received = told(path)
    path.unlink()
    return received
