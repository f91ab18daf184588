"""Pages that stand alone: one file, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str, values: Mapping[str, object], filters: Mapping[str, Callable[[float], float]] | None = None
) -> str:
    """Return a page made from a template; raises jinja2.UndefinedError for a value it lacks."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(f"{template}.j2").render(values)
