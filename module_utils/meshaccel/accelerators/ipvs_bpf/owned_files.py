# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of ours in others' directories (sysctl.d, modules-load.d, modprobe.d), told by their first line."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...engine import Handler
from ...errors import NotOurs
from ...model import Action, Json, Plan
from ...system import files

MARK = "# Written by meshaccel (ipvs_bpf); changes are overwritten."
KIND = "ipvs_bpf.file"


def read(root: str, path: str) -> str | None:
    """Returns the text of a file below a root; None when there is no file."""
    content = files.read(os.path.join(root, path))
    return None if content is None else content.decode(errors="replace")


def writing(path: str, wished: str | None, there: str | None) -> Plan:
    """Writes a file, or removes it (None); raises NotOurs when what is there has not our mark."""
    if there is not None and not there.startswith(MARK):
        raise NotOurs(
            wanted=f"/{path} to be ours", found="a file without our first line", remedy="move it away"
        )
    if wished == there:
        return ()
    undo = Action(KIND, f"restore /{path}", {"path": path, "text": there})
    word = "remove" if wished is None else "write"
    return (Action(KIND, f"{word} /{path}", {"path": path, "text": wished}, (undo,)),)


def handlers(root: str) -> dict[str, Handler]:
    """Returns the handler of these actions."""

    def write(arguments: Mapping[str, Json]) -> None:
        path = os.path.join(root, arguments["path"])
        if arguments["text"] is None:
            files.remove(path)
        else:
            files.write(path, arguments["text"].encode())

    return {KIND: write}
