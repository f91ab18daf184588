"""The grid as a picture: a tile a cell, its colour and number the ratio; plain SVG, no scripts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.cells import CONNECTIONS, PATTERNS, SIZES, Cell, size_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.cells import Condition
    from tests.bench.grid_table import Change, GridRow

TILE_WIDTH = 62
TILE_HEIGHT = 26
GAP = 2
PATTERN_GAP = 8
LABEL_WIDTH = 104
PANEL_GAP = 28
HEADING_HEIGHT = 46
LEGEND_HEIGHT = 48
PANEL_WIDTH = len(SIZES) * (TILE_WIDTH + GAP) - GAP


@dataclass(frozen=True)
class Shade:
    """A colour for ratios up to a bound; `goodness` is the ratio of what more is better of."""

    below: float
    fill: str
    ink: str


DARK, LIGHT = "#1b1f24", "#ffffff"
SHADES = (
    Shade(0.67, "#a5182d", LIGHT),
    Shade(0.80, "#dc6a50", DARK),
    Shade(0.95, "#f7b799", DARK),
    Shade(1.055, "#eceff1", DARK),
    Shade(1.25, "#b5d7e8", DARK),
    Shade(1.50, "#5aa2cb", DARK),
    Shade(float("inf"), "#1f5c99", LIGHT),
)
"""From loss to gain; red and blue are told apart by those who do not see red and green, too."""


@dataclass(frozen=True)
class Aspect:
    """One side of the result that a picture shows."""

    title: str
    change: Callable[[GridRow], Change]
    is_beyond: Callable[[GridRow], bool]
    more_is_better: bool

    def shade(self, ratio: float) -> Shade:
        """Return the colour of a ratio as it is shown, that is rounded."""
        goodness = ratio if self.more_is_better else 1 / ratio
        return next(shade for shade in SHADES if goodness < shade.below)

    def legend(self) -> list[tuple[str, Shade]]:
        """Return the colours and the ratios they stand for, from loss to gain."""
        bounds = [0.0, *(shade.below for shade in SHADES)]
        return [
            (self._span(low, high), shade)
            for (low, high), shade in zip(itertools.pairwise(bounds), SHADES, strict=True)
        ]

    def _span(self, low: float, high: float) -> str:
        sign_low, sign_high = "under", "over"
        if not self.more_is_better:
            sign_low, sign_high = sign_high, sign_low
            low, high = (1 / low if low else 0.0), (1 / high)
        if low == 0:
            return f"{sign_low} ×{high:.2f}"
        if high in (0, float("inf")):
            return f"{sign_high} ×{low:.2f}"
        return f"×{min(low, high):.2f}-{max(low, high):.2f}"


THROUGHPUT = Aspect("Throughput", lambda row: row.throughput, lambda row: row.is_slower, more_is_better=True)
COST = Aspect(
    "CPU for the same work", lambda row: row.cost, lambda row: row.is_costlier, more_is_better=False
)
ASPECTS = (THROUGHPUT, COST)


@dataclass(frozen=True)
class Tile:
    """One cell of the picture; places are those of its upper left corner."""

    x: int
    y: int
    text: str
    shade: Shade
    outlined: bool
    """Whether it is beyond the limit."""
    hint: str


@dataclass(frozen=True)
class Label:
    """Words beside the tiles."""

    x: int
    y: int
    text: str


@dataclass(frozen=True)
class Legend:
    """A colour's explanation."""

    x: int
    text: str
    fill: str


@dataclass(frozen=True)
class Picture:
    """A heat map, ready to be drawn."""

    title: str
    width: int
    height: int
    tiles: tuple[Tile, ...]
    panel_titles: tuple[Label, ...]
    columns: tuple[Label, ...]
    rows: tuple[Label, ...]
    legend: tuple[Legend, ...]
    tile_width: int = TILE_WIDTH
    tile_height: int = TILE_HEIGHT


@dataclass(frozen=True)
class Panel:
    """One block of tiles: what a run found under one condition."""

    title: str
    condition: Condition
    rows: Sequence[GridRow]


def draw(aspect: Aspect, panels: Sequence[Panel]) -> Picture:
    """Return the picture of one aspect, panels from left to right; cells not measured stay blank."""
    width = LABEL_WIDTH + len(panels) * (PANEL_WIDTH + PANEL_GAP)
    lefts = [LABEL_WIDTH + index * (PANEL_WIDTH + PANEL_GAP) for index in range(len(panels))]
    tiles = [tile for left, panel in zip(lefts, panels, strict=True) for tile in _tiles(aspect, panel, left)]
    bottom = _row_y(len(PATTERNS) - 1, len(CONNECTIONS) - 1) + TILE_HEIGHT
    spans = aspect.legend()
    return Picture(
        title=aspect.title,
        width=width,
        height=bottom + LEGEND_HEIGHT,
        tiles=tuple(tiles),
        panel_titles=tuple(Label(left, 16, panel.title) for left, panel in zip(lefts, panels, strict=True)),
        columns=tuple(
            Label(_column_x(left, column) + TILE_WIDTH // 2, HEADING_HEIGHT - 8, size_word(size))
            for left in lefts
            for column, size in enumerate(SIZES)
        ),
        rows=tuple(_row_labels()),
        legend=tuple(
            Legend(LABEL_WIDTH + index * (width - LABEL_WIDTH) // len(spans), text, shade.fill)
            for index, (text, shade) in enumerate(spans)
        ),
    )


def _row_labels() -> list[Label]:
    return [
        Label(LABEL_WIDTH - 8, _row_y(place, line) + TILE_HEIGHT // 2, f"{pattern}, {connections}")
        for place, pattern in enumerate(PATTERNS)
        for line, connections in enumerate(CONNECTIONS)
    ]


def _tiles(aspect: Aspect, panel: Panel, left: int) -> list[Tile]:
    found: Mapping[Cell, GridRow] = {row.cell: row for row in panel.rows}
    places = itertools.product(enumerate(PATTERNS), enumerate(CONNECTIONS), enumerate(SIZES))
    cells = (
        (Cell(size, pattern, connections, panel.condition), _column_x(left, column), _row_y(place, line))
        for (place, pattern), (line, connections), (column, size) in places
    )
    return [_tile(aspect, found[cell], x, y) for cell, x, y in cells if cell in found]


def _tile(aspect: Aspect, row: GridRow, x: int, y: int) -> Tile:
    change = aspect.change(row)
    return Tile(
        x,
        y,
        f"{change.ratio:.2f}",
        aspect.shade(change.rounded),
        aspect.is_beyond(row),
        f"{row.cell.label}: {change.text().strip()}, {row.pairs} pairs",
    )


def _column_x(left: int, column: int) -> int:
    return left + column * (TILE_WIDTH + GAP)


def _row_y(pattern: int, line: int) -> int:
    rows_above = pattern * len(CONNECTIONS) + line
    return HEADING_HEIGHT + rows_above * (TILE_HEIGHT + GAP) + pattern * PATTERN_GAP
