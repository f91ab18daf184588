# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Single values of a wish: what is wrong with one is said in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, NoReturn, TypeVar

from .errors import InvalidInput
from .model import Json

LONGEST_NUMBER = 18
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Variables:
    """The variables of a role without their prefix; what is said of one names it in full."""

    raw: Mapping[str, Json]
    prefix: str

    def listed(self, key: str) -> Sequence[Json]:
        """Returns a list-valued key; absent means empty."""
        value = self.raw.get(key)
        if value is None:
            return ()
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            invalid(f"a list for {self.prefix}{key}", repr(value), "write it as a YAML list")
        return tuple(value)

    def number(self, key: str, default: int, smallest: int, largest: int) -> int:
        """Returns a whole number within its limits."""
        value = self.raw.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not is_number(str(value)):
            invalid(f"a whole number for {self.prefix}{key}", repr(value), "correct it")
        if not smallest <= int(value) <= largest:
            invalid(f"{self.prefix}{key} from {smallest} to {largest}", str(value), "correct it")
        return int(value)

    def boolean(self, key: str) -> bool:
        """Returns a key that is true or false; absent means false."""
        value = self.raw.get(key)
        if value is None:
            return False
        # A template of Ansible's may hand over the word.
        if str(value).lower() not in ("true", "false"):
            invalid(f"true or false for {self.prefix}{key}", repr(value), "correct it")
        return str(value).lower() == "true"


def choice(raw: Mapping[str, Json], key: str, allowed: tuple[str, ...], default: str) -> str:
    """Returns a key that has a closed set of values."""
    value = raw.get(key)
    if value is None:
        return default
    # YAML 1.1 reads a bare on or off as a boolean.
    if isinstance(value, bool) and "on" in allowed:
        return "on" if value else "off"
    if value not in allowed:
        invalid(f"{key} to be one of {', '.join(allowed)}", repr(value), "correct it")
    return str(value)


def is_number(text: str) -> bool:
    """True for plain decimal digits, few enough that int() takes them."""
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER


def given(raw: Mapping[str, Json], key: str) -> Json:
    """Returns a list-valued key; absent or null means an empty list."""
    return [] if raw.get(key) is None else raw[key]


def reject_unknown(raw: Mapping[str, Json], known: frozenset[str], where: str) -> None:
    """Raises InvalidInput for a key that means nothing here."""
    unknown = sorted(set(map(str, raw)) - known)
    if unknown:
        invalid(
            f"only {', '.join(sorted(known))} in {where}",
            ", ".join(unknown),
            "check the spelling",
        )


def invalid(wanted: str, found: str, remedy: str) -> NoReturn:
    """Raises InvalidInput."""
    raise InvalidInput(wanted=wanted, found=found, remedy=remedy)


class Collector:
    """Parses values that do not depend on each other, and tells all that is wrong at once."""

    def __init__(self) -> None:
        """Begins with nothing wrong."""
        self.mistakes: list[str] = []

    def parsed(self, parse: Callable[[], Parsed], otherwise: Parsed) -> Parsed:
        """Returns what ``parse`` returns, or ``otherwise`` where it raises InvalidInput, which is kept."""
        try:
            return parse()
        except InvalidInput as error:
            self.mistakes.append(f"wanted {error.wanted}; found {error.found}; {error.remedy}")
            return otherwise

    def each(
        self, entries: Sequence[Json], where: str, parse: Callable[[Json], Parsed]
    ) -> tuple[Parsed, ...]:
        """Returns the entries of a list that are right; what is wrong is told by its place, from 1 on."""
        parsed: list[Parsed] = []
        for place, entry in enumerate(entries, start=1):
            try:
                parsed.append(parse(entry))
            except InvalidInput as error:
                self.mistakes.append(
                    f"{where}, entry {place}: wanted {error.wanted}; found {error.found}; {error.remedy}"
                )
        return tuple(parsed)

    def finish(self, what: str) -> None:
        """Raises InvalidInput with a line for each mistake, if there was one."""
        if self.mistakes:
            count = f"{len(self.mistakes)} mistakes" if len(self.mistakes) > 1 else "a mistake"
            invalid(
                f"{what} without a mistake",
                f"{count}, so nothing was changed:\n" + "\n".join(self.mistakes) + "\n",
                "correct each",
            )
