# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Text files of ours as actions: written where they differ, removed, each with the way back."""

from __future__ import annotations

from collections.abc import Mapping

from .engine import Handler
from .model import Action, Json, Plan
from .system import files

ORDINARY = 0o644


def written(path: str, content: bytes, before: bytes | None, mode: int = ORDINARY) -> Plan:
    """Writes a file that differs; ``before`` is None where there was none."""
    if before == content:
        return ()
    if before is None:
        undo = Action("file.remove", f"remove {path}", {"path": path})
    else:
        undo = write_action(path, before, mode)
    return (write_action(path, content, mode, (undo,)),)


def removed(path: str, before: bytes | None, mode: int = ORDINARY) -> Plan:
    """Removes a file, if there was one."""
    if before is None:
        return ()
    undo = write_action(path, before, mode)
    return (Action("file.remove", f"remove {path}", {"path": path}, (undo,)),)


def write_action(path: str, content: bytes, mode: int, undo: Plan = ()) -> Action:
    """Builds the write of a text file."""
    arguments = {"path": path, "text": content.decode(errors="surrogateescape"), "mode": mode}
    return Action("file.write", f"write {path}", arguments, undo)


def handlers() -> dict[str, Handler]:
    """Returns the handlers of the actions above."""
    return {"file.write": write, "file.remove": lambda arguments: files.remove(str(arguments["path"]))}


def write(arguments: Mapping[str, Json]) -> None:
    """Writes a text file with its mode."""
    content = str(arguments["text"]).encode(errors="surrogateescape")
    files.write(str(arguments["path"]), content, int(arguments["mode"]))
