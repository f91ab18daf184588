"""Configuration files of the programs under test, made from templates."""

from __future__ import annotations

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def write_configuration(template: str, directory: Path, **values: object) -> Path:
    """Fill in a template, with the directory itself as one of the values; return the file.

    Raises jinja2.UndefinedError when the template asks for a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # nothing here is HTML
        keep_trailing_newline=True,
    )
    configuration = directory / template.removesuffix(".j2")
    text = environment.get_template(template).render(directory=directory, **values)
    configuration.write_text(text, encoding="utf-8")
    return configuration
