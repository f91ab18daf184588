"""The cells of the grid: every kind of load that a connection may carry, idle and busy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KILOBYTE = 1024
MEGABYTE = 1024 * KILOBYTE

Pattern = Literal["pingpong", "stream", "mixed"]
Condition = Literal["idle", "busy"]

SIZES = (64, KILOBYTE, 16 * KILOBYTE, 128 * KILOBYTE, MEGABYTE)
PATTERNS: tuple[Pattern, ...] = ("pingpong", "stream", "mixed")
CONNECTIONS = (1, 8, 64)
CONDITIONS: tuple[Condition, ...] = ("idle", "busy")


@dataclass(frozen=True)
class Cell:
    """One combination of what the grid varies."""

    size: int
    """Bytes of a message, or of one write of a stream."""
    pattern: Pattern
    connections: int
    condition: Condition
    """Whether other work competes for the processors."""

    @property
    def words(self) -> tuple[str, str, str, str]:
        """The cell as the command line names it, one word for each thing that varies."""
        return (size_word(self.size), self.pattern, connections_word(self.connections), self.condition)

    @property
    def label(self) -> str:
        """The cell in one line."""
        return " ".join(self.words)


def size_word(size: int) -> str:
    """Return a size in bytes the short way: 64B, 16KB, 1MB."""
    for unit, name in ((MEGABYTE, "MB"), (KILOBYTE, "KB")):
        if size >= unit:
            return f"{size // unit}{name}"
    return f"{size}B"


def connections_word(connections: int) -> str:
    """Return a number of connections the short way: 8c."""
    return f"{connections}c"


ALL_CELLS = tuple(
    Cell(size, pattern, connections, condition)
    for condition, pattern, connections, size in itertools.product(CONDITIONS, PATTERNS, CONNECTIONS, SIZES)
)
DIMENSIONS: tuple[tuple[str, ...], ...] = (
    tuple(size_word(size) for size in SIZES),
    PATTERNS,
    tuple(connections_word(connections) for connections in CONNECTIONS),
    CONDITIONS,
)
"""The words that name cells; words of one line are alternatives."""


def chosen(cells: Iterable[Cell], words: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells that have, of every line of DIMENSIONS, one of the words given of it.

    A line that no word is of does not restrict. Raises ValueError for a word of no line.
    """
    unknown = set(words).difference(*DIMENSIONS)
    if unknown:
        known = "; ".join(", ".join(line) for line in DIMENSIONS)
        raise ValueError(f"no cells are named {', '.join(sorted(unknown))}; there are {known}")
    wanted = [set(line).intersection(words) or set(line) for line in DIMENSIONS]
    return tuple(
        cell for cell in cells if all(word in line for word, line in zip(cell.words, wanted, strict=True))
    )
