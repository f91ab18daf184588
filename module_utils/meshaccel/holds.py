# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Modes that an on-call engineer holds by hand, against the desired state.

A hold outlives playbook runs and reboots until ``meshaccel on`` lifts it: what
was switched off in an incident must not come back by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .engine import Handler
from .errors import InvalidInput
from .model import Action, Json, Mode, Plan
from .paths import NodePaths
from .system import files


@dataclass(frozen=True)
class Hold:
    """What is held of one accelerator: all of it, or single cgroups."""

    mode: Mode | None = None
    cgroups: Mapping[str, Mode] = field(default_factory=dict)

    @classmethod
    def given(cls, arguments: Mapping[str, Json]) -> Hold:
        """Returns the hold that as_dict() gave."""
        mode, cgroups = arguments["mode"], arguments["cgroups"]
        return cls(
            None if mode is None else Mode(mode),
            {path: Mode(value) for path, value in cgroups.items()},
        )

    def as_dict(self) -> dict[str, Json]:
        """Returns the hold as plain data."""
        return {
            "mode": self.mode.value if self.mode else None,
            "cgroups": {path: mode.value for path, mode in self.cgroups.items()},
        }

    @property
    def empty(self) -> bool:
        """True when nothing is held."""
        return self.mode is None and not self.cgroups


def read(paths: NodePaths, accelerator: str) -> Hold:
    """Returns the hold on an accelerator.

    Raises InvalidInput when the file is damaged: guessing could switch on what
    somebody switched off.
    """
    held = read_all(paths).get(accelerator)
    if held is None:
        return Hold()
    try:
        return Hold.given(held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(paths, repr(error)) from error


def write(paths: NodePaths, accelerator: str, hold: Hold) -> None:
    """Replaces the hold on an accelerator; an empty one removes it."""
    everything = dict(read_all(paths))
    everything.pop(accelerator, None)
    if not hold.empty:
        everything[accelerator] = hold.as_dict()
    if everything:
        text = json.dumps(everything, indent=2, sort_keys=True) + "\n"
        files.write(paths.holds, text.encode())
    else:
        files.remove(paths.holds)


def read_all(paths: NodePaths) -> Mapping[str, dict[str, Json]]:
    """Returns the holds of all accelerators as the file has them."""
    content = files.read(paths.holds)
    if content is None:
        return {}
    try:
        everything = json.loads(content)
    except ValueError as error:
        raise damaged(paths, error) from error
    if not isinstance(everything, dict):
        raise damaged(paths, "no dictionary")
    return everything


def damaged(paths: NodePaths, cause: object) -> InvalidInput:
    """Builds the error for a holds file that cannot be read."""
    return InvalidInput(
        wanted=f"the held modes in {paths.holds}",
        found=f"a file that was damaged or edited by hand ({cause})",
        remedy="remove the file if no accelerator must stay off, then run again",
    )


def words(paths: NodePaths, accelerator: str) -> Json:
    """Returns what is held as plain data for status, or None; damage is told, not hidden."""
    try:
        hold = read(paths, accelerator)
    except InvalidInput as error:
        return {**Hold().as_dict(), "error": str(error)}
    return None if hold.empty else hold.as_dict()


def held(hold: Mode | None, wished: Mode) -> Mode:
    """An operator's hold wins over the wish."""
    return wished if hold is None else hold


def lifting(accelerator: str, hold: Hold) -> Plan:
    """Lifts what is held of an accelerator that is removed."""
    if hold.empty:
        return ()
    keep = Action(f"{accelerator}.hold", f"hold {accelerator} again", hold.as_dict())
    lift = f"lift the operator's hold on {accelerator}"
    return (Action(f"{accelerator}.hold", lift, Hold().as_dict(), (keep,)),)


def handlers(paths: NodePaths, accelerator: str) -> dict[str, Handler]:
    """Returns the handler of the actions above."""
    return {f"{accelerator}.hold": lambda arguments: write(paths, accelerator, Hold.given(arguments))}
