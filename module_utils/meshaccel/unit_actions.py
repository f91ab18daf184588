# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Units of systemd as actions: written, enabled and, where asked for, started; each with the way back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from . import file_actions
from .engine import Handler
from .model import Action, Json, Plan
from .paths import NodePaths
from .system import files, systemd

WANTED_BY = "multi-user.target.wants"


@dataclass(frozen=True)
class Unit:
    """A unit of ours as it is on the node; ``text`` is None without the file."""

    name: str
    path: str
    text: bytes | None
    enabled: bool

    @classmethod
    def observe(cls, paths: NodePaths, name: str) -> Unit:
        """Reads the unit's file, and whether it is wanted at boot."""
        path = os.path.join(paths.units, name)
        enabled = os.path.lexists(os.path.join(paths.units, WANTED_BY, name))
        return cls(name, path, files.read(path), enabled)


def installed(unit: Unit, text: bytes, *, starts: bool = False) -> Plan:
    """Writes and enables a unit; on the way back it is as it was, and enabled if it was.

    With ``starts`` it runs afterwards, else from the next boot on.
    """
    if unit.text == text and unit.enabled:
        return ()
    writing = file_actions.written(unit.path, text, unit.text)
    if unit.text is None:
        return (*writing, enable_action(unit, (disable_action(unit),), starts=starts))
    back = enable_action(unit, starts=starts)
    return (*(replace(action, undo=(*action.undo, back)) for action in writing), back)


def removed(unit: Unit, *, starts: bool = False) -> Plan:
    """Disables, stops and removes a unit; one whose file somebody has removed is stopped and forgotten."""
    if unit.text is None:
        return (forget_action(unit),) if unit.enabled else ()
    back = (enable_action(unit, starts=starts),)
    removing = file_actions.removed(unit.path, unit.text)
    return (
        disable_action(unit, back),
        *(replace(action, undo=(*action.undo, *back)) for action in removing),
    )


def enable_action(unit: Unit, undo: Plan = (), *, starts: bool = False) -> Action:
    """Builds the enabling of a unit, which has systemd read it anew as well."""
    words = f"enable and start {unit.name}" if starts else f"enable {unit.name}"
    return Action("systemd.enable", words, {"unit": unit.name, "starts": starts}, undo)


def disable_action(unit: Unit, undo: Plan = ()) -> Action:
    """Builds the disabling of a unit, which stops it."""
    return Action("systemd.disable", f"disable {unit.name}", {"unit": unit.name}, undo)


def forget_action(unit: Unit) -> Action:
    """Builds the end of a unit that has no file any more. There is no way back: nobody knows its text."""
    link = os.path.join(os.path.dirname(unit.path), WANTED_BY, unit.name)
    words = f"stop {unit.name}, whose file is gone, and take it out of the boot"
    return Action("systemd.forget", words, {"unit": unit.name, "link": link})


def handlers() -> dict[str, Handler]:
    """Returns the handlers of the actions above; files are file_actions'."""
    return {"systemd.enable": enable, "systemd.disable": disable, "systemd.forget": forget}


def enable(arguments: Mapping[str, Json]) -> None:
    """Enables a unit; one that is to run and runs already is started anew, with its new text."""
    unit = str(arguments["unit"])
    systemd.control("daemon-reload")
    systemd.control("enable", unit)
    if arguments["starts"]:
        systemd.control("restart", unit)


def disable(arguments: Mapping[str, Json]) -> None:
    """Disables and stops a unit: systemd would go on to show one that has run as active."""
    systemd.control("disable", str(arguments["unit"]), "--now")


def forget(arguments: Mapping[str, Json]) -> None:
    """Stops a unit without a file, and removes the link by which it would be wanted at boot.

    `systemctl disable` does neither for a unit that it does not find.
    """
    unit = str(arguments["unit"])
    if systemd.is_active(unit):
        systemd.control("stop", unit)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(str(arguments["link"]))
    systemd.control("daemon-reload")
