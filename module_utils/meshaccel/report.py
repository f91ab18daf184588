# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""How a module tells its result; the module itself is passed in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, Protocol

from .engine import Result
from .errors import MeshaccelError
from .model import Json


class Module(Protocol):
    """What is used of AnsibleModule."""

    def exit_json(self, **results: Json) -> NoReturn:
        """Ends the module well."""

    def fail_json(self, msg: str, **results: Json) -> NoReturn:
        """Ends the module badly."""

    def warn(self, warning: str) -> None:
        """Shows the operator a warning."""


def succeed(module: Module, result: Result, **more: Json) -> NoReturn:
    """Ends a module with the actions, the diff and the notes of a converge."""
    for note in result.notes:
        module.warn(note)
    module.exit_json(
        changed=result.changed,
        actions=[action.as_dict() for action in result.actions],
        diff=difference(result.before, result.after),
        **more,
    )


@contextmanager
def telling_errors(module: Module) -> Iterator[None]:
    """Ends a module with what a block raises, where that is an error for the operator."""
    try:
        yield
    except (MeshaccelError, OSError) as error:
        fail(module, error)


def fail(module: Module, error: MeshaccelError | OSError) -> NoReturn:
    """Ends a module with what was wanted, what was found and what to do."""
    if isinstance(error, MeshaccelError):
        module.fail_json(msg=str(error), wanted=error.wanted, found=error.found, remedy=error.remedy)
    module.fail_json(msg=str(error))


def difference(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, str]:
    """Returns Ansible's diff of two descriptions."""
    return {"before": text(before), "after": text(after)}


def text(description: Mapping[str, Json]) -> str:
    """Returns a description as text that compares well line by line."""
    return json.dumps(description, indent=2, sort_keys=True) + "\n"
