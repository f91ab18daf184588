# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""nftables by its own program: lists as JSON (libnftables-json(5)), changes as one transaction."""

from __future__ import annotations

import json

from ..model import Json
from . import tools

PACKAGE = "nftables"
MISSING = "No such file or directory"


def listing(*words: str) -> list[Json]:
    """Returns the objects that ``nft list`` with these words names.

    Raises Unsupported when nft is not there, ToolFailed when it refuses. nft
    joins its words and parses the text, so none may come from input unchecked.
    """
    answer = json.loads(tools.run(["nft", "-j", "list", *words], package=PACKAGE))
    return list(answer["nftables"])


def table(family: str, name: str) -> list[Json] | None:
    """Returns the objects of a table; None when there is no such table. Raises as listing()."""
    try:
        return listing("table", family, name)
    except tools.ToolFailed as error:
        if MISSING in error.found:
            return None
        raise


def apply(script: str) -> None:
    """Carries out a script in one transaction: all of it, or nothing. Raises as listing()."""
    tools.run(["nft", "-f", "-"], package=PACKAGE, standard_input=script)
