# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The file in which a node keeps the wish for an accelerator, for restore at boot and for the command."""

from __future__ import annotations

from .errors import InvalidInput
from .paths import NodePaths
from .system import files


def require(paths: NodePaths, accelerator: str) -> bytes:
    """Returns what the file has; raises InvalidInput when there is none."""
    path = paths.desired(accelerator)
    content = files.read(path)
    if content is None:
        raise InvalidInput(
            wanted=f"the desired state in {path}",
            found="no such file",
            remedy="run the playbook first; there is nothing to restore",
        )
    return content


def damaged(path: str, cause: Exception) -> InvalidInput:
    """Builds the error for a file that cannot be read."""
    return InvalidInput(
        wanted=f"the desired state in {path}",
        found=f"a file that was damaged or edited by hand ({cause!r})",
        remedy="run the playbook again; it writes the file anew",
    )
