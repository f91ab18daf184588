# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of the last run on a node, for status and for roll-outs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from .engine import BeforeAction, ignore
from .errors import MeshaccelError
from .lock import node_lock
from .model import Action, Json
from .paths import NodePaths
from .system import files

#: A run that ended without writing another phase was interrupted.
APPLYING = "applying"
DONE = "done"
FAILED = "failed"

Outcome = TypeVar("Outcome")


class Wish(Protocol):
    """What is used of a wish."""

    @property
    def present(self) -> bool:
        """Whether the accelerator is to be on the node."""


Desired_contra = TypeVar("Desired_contra", bound=Wish, contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)


class Converge(Protocol[Desired_contra, Outcome_co]):
    """What makes the node as wished, as the accelerators' own converge() do."""

    def __call__(
        self, desired: Desired_contra, /, *, check_mode: bool, before_action: BeforeAction
    ) -> Outcome_co:
        """Makes the node as wished. The caller holds the node's lock."""


def read(paths: NodePaths) -> dict[str, Json]:
    """Returns the record by accelerator, without what is damaged; empty when there is none.

    The record informs; no decision of a plan rests on it.
    """
    content = files.read(paths.record)
    if content is None:
        return {}
    try:
        loaded = json.loads(content)
    except ValueError:
        return {}
    if not isinstance(loaded, dict):
        return {}
    return {name: entry for name, entry in loaded.items() if isinstance(entry, dict)}


def write(paths: NodePaths, accelerator: str, entry: dict[str, Json] | None) -> None:
    """Replaces an accelerator's entry; None removes it."""
    everything = read(paths)
    everything.pop(accelerator, None)
    if entry is not None:
        everything[accelerator] = entry
    if everything:
        text = json.dumps(everything, indent=2, sort_keys=True) + "\n"
        files.write(paths.record, text.encode())
    else:
        files.remove(paths.record)


def recorded(
    paths: NodePaths,
    accelerator: str,
    run: Callable[[BeforeAction], Outcome],
    *,
    keeps: bool,
    check_mode: bool = False,
    unattended: bool = False,
) -> Outcome:
    """Runs under the node's lock and records how it went.

    Nothing is written when the run has no action and the last one ended well, and
    check mode takes no lock. A run that fails before its first action is told to
    whoever called it and not recorded, unless it is ``unattended``, as at boot.
    ``keeps`` says whether the accelerator is still there afterwards; a removed one
    leaves no entry.
    """
    if check_mode:
        return run(ignore)
    started: list[Action] = []

    def note(action: Action) -> None:
        if not started and keeps:
            write(paths, accelerator, {"phase": APPLYING, "time": now()})
        started.append(action)

    with node_lock(paths, f"{accelerator} converge"):
        files.remove_unfinished(paths.configuration)
        try:
            outcome = run(note)
        except (MeshaccelError, OSError) as error:
            if started or unattended:
                failed = {"phase": FAILED, "time": now(), "error": str(error)}
                write(paths, accelerator, failed)
            raise
        actions = [entry.summary for entry in started]
        if not keeps:
            forget(paths, accelerator)
        elif actions or interrupted(paths, accelerator):
            write(paths, accelerator, {"phase": DONE, "time": now(), "actions": actions})
    return outcome


def converge(
    paths: NodePaths,
    accelerator: str,
    desired: Desired_contra,
    run: Converge[Desired_contra, Outcome_co],
    *,
    check_mode: bool = False,
) -> Outcome_co:
    """Makes the node as wished, under its lock, and records how it went, as recorded() does."""
    return recorded(
        paths,
        accelerator,
        lambda note: run(desired, check_mode=check_mode, before_action=note),
        keeps=desired.present,
        check_mode=check_mode,
    )


def forget(paths: NodePaths, accelerator: str) -> None:
    """Removes an accelerator's entry, if there is one."""
    if accelerator in read(paths):
        write(paths, accelerator, None)


def interrupted(paths: NodePaths, accelerator: str) -> bool:
    """True when the last run was killed, or failed, before the node was as wished."""
    entry = read(paths).get(accelerator)
    return entry is not None and entry.get("phase") != DONE


def now() -> str:
    """Returns the time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
