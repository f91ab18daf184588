"""A strict reader of Prometheus' text format 0.0.4, as the node's exporter has to write it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL_NAME = "[a-zA-Z_][a-zA-Z0-9_]*"
#: Backslash, quote and newline are escaped; nothing else is.
LABEL_VALUE = r'(?:[^"\\\n]|\\["\\n])*'
HELP = re.compile(rf"# HELP ({NAME}) ((?:[^\\\n]|\\[\\n])+)")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")
LABEL = re.compile(rf'({LABEL_NAME})="({LABEL_VALUE})"(?:,|$)')
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:{LABEL_NAME}="{LABEL_VALUE}",?)+)\}})? (\S+)')
ESCAPE = re.compile(r"\\(.)")
ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}

Labels = tuple[tuple[str, str], ...]


class FormatError(ValueError):
    """Something that a server would not take, or that the format advises against."""


@dataclass
class Family:
    """A metric: what it is, and its samples by their labels."""

    kind: str
    help: str
    samples: dict[Labels, float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Return the metrics of an exposition by name; raises FormatError for anything unusual.

    Each has its HELP, its TYPE and then all its samples, in this order and once.
    """
    if text and not text.endswith("\n"):
        raise FormatError("the last line does not end")
    families: dict[str, Family] = {}
    helps: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        if described := HELP.fullmatch(line):
            read_help(helps, described)
        elif typed := TYPE.fullmatch(line):
            families[typed[1]] = read_type(families, helps, typed)
        elif sample := SAMPLE.fullmatch(line):
            read_sample(families, sample)
        else:
            raise FormatError(f"neither HELP, TYPE nor a sample: {line!r}")
    empty = [name for name in helps if name not in families or not families[name].samples]
    if empty:
        raise FormatError(f"no samples of {', '.join(empty)}")
    return families


def read_help(helps: dict[str, str], described: re.Match[str]) -> None:
    """Take a HELP line."""
    if described[1] in helps:
        raise FormatError(f"a second HELP of {described[1]}")
    helps[described[1]] = described[2]


def read_type(families: dict[str, Family], helps: dict[str, str], typed: re.Match[str]) -> Family:
    """Take a TYPE line, which has to follow the metric's HELP."""
    name, kind = typed.groups()
    if name in families or [*helps][-1:] != [name]:
        raise FormatError(f"a TYPE of {name} that does not follow its HELP")
    if name.endswith("_total") != (kind == "counter"):
        raise FormatError(f"{name} is a {kind}")
    return Family(kind, helps[name])


def read_sample(families: dict[str, Family], sample: re.Match[str]) -> None:
    """Take a sample, which has to belong to the metric above it."""
    name, written, value = sample[1], sample[2] or "", float(sample[3])
    if [*families][-1:] != [name]:
        raise FormatError(f"a sample of {name} outside its metric")
    labels = labels_of(written)
    if labels in families[name].samples:
        raise FormatError(f"{name} has {labels} twice")
    if families[name].kind == "counter" and not (value >= 0 and math.isfinite(value)):
        raise FormatError(f"the counter {name} is {value}")
    families[name].samples[labels] = value


def labels_of(written: str) -> Labels:
    """Return the labels between the braces, their values as they were before escaping."""
    found = {
        match[1]: ESCAPE.sub(lambda escape: ESCAPED[escape[1]], match[2]) for match in LABEL.finditer(written)
    }
    if len(found) != len(LABEL.findall(written)):
        raise FormatError(f"a label twice in {written}")
    return tuple(sorted(found.items()))
