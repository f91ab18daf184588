# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""node_runtime carried out: the handlers of its actions, and converge as one call.

Apart from runtime.py, which is part of every run on every node, since this is
needed only where something is to be changed.
"""

from __future__ import annotations

import compileall
import os
import py_compile
from collections.abc import Mapping
from dataclasses import dataclass

from . import file_actions, release, release_archive, unit_actions
from .engine import BeforeAction, Handler, Result, converge, ignore
from .errors import InvalidInput, MeshaccelError
from .model import Json
from .paths import NodePaths
from .runtime import (
    UNIT_NAME,
    Desired,
    Observed,
    describe,
    describe_observed,
    has_libbpf,
    make_plan,
    observe,
)
from .system import files, systemd


@dataclass(frozen=True)
class RuntimeResult(Result):
    """A converge of the runtime, and whether the node has what accelerators load with."""

    has_libbpf: bool = True


def handlers(paths: NodePaths) -> dict[str, Handler]:
    """Returns the handlers by kind of action."""

    def install(arguments: Mapping[str, Json]) -> None:
        name = release_archive.install(paths.library, str(arguments["digest"]), str(arguments["archive"]))
        # Compiled now: the command then starts in a third of the time. With the sources' hashes, so
        # that whoever has compared the sources knows what runs.
        compileall.compile_dir(
            os.path.join(paths.library, name),
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )
        release.select(paths.library, name)

    def prune(arguments: Mapping[str, Json]) -> None:
        keep = {release.selected(paths.library), *arguments["previous"]}
        for name in release.names(paths.library):
            if name not in keep:
                release.remove(paths.library, name)
        release.remove_half_done(paths.library)

    return {
        "release.install": install,
        "release.select": lambda found: release.select(paths.library, found["name"]),
        "release.prune": prune,
        "release.remove_all": lambda _: release.remove_all(paths.library),
        "release.cannot_restore": cannot_restore,
        "configuration.remove": lambda _: remove_configuration(paths),
        **file_actions.handlers(),
        **unit_actions.handlers(),
    }


def cannot_restore(_: Mapping[str, Json]) -> None:
    """Stands for a way back that there is none of; raises MeshaccelError to say so."""
    raise MeshaccelError(
        wanted="the release before on the node again",
        found="it was removed in part and the node has no other copy",
        remedy="run the playbook again",
    )


def run(
    desired: Desired,
    paths: NodePaths,
    *,
    check_mode: bool = False,
    before_action: BeforeAction = ignore,
) -> RuntimeResult:
    """Makes the node's runtime as wished. The caller holds the node's lock.

    Raises InvalidInput when accelerators would lose the command that undoes them.
    """
    if not desired.present and not check_mode:
        require_no_accelerators(paths)
    outcome = converge(
        lambda: observe(paths),
        lambda seen: make_plan(desired, seen, paths),
        handlers(paths),
        check_mode=check_mode,
        before_action=before_action,
    )
    return RuntimeResult(
        outcome.actions,
        describe_observed(outcome.before),
        describe(desired, outcome.before),
        notes(desired, outcome.before),
        has_libbpf(),
    )


def require_no_accelerators(paths: NodePaths) -> None:
    """Raises InvalidInput while an accelerator is still on the node."""
    if os.path.isdir(paths.pins) and os.listdir(paths.pins):
        raise InvalidInput(
            wanted="to remove the node's runtime",
            found="accelerators still loaded: " + ", ".join(sorted(os.listdir(paths.pins))),
            remedy="remove them first with state absent (playbooks/remove.yml does)",
        )


def remove_configuration(paths: NodePaths) -> None:
    """Removes the record and the configuration directory, if nothing else is in it."""
    files.remove(paths.record)
    files.remove_empty_directory(paths.configuration)


def notes(desired: Desired, observed: Observed) -> tuple[str, ...]:
    """Says what was not installed, and what that means."""
    if observed.systemd or not desired.present:
        return ()
    missing = f"PID 1 is {systemd.init_name()}, not systemd: {UNIT_NAME} was not installed"
    return (f"{missing}; have your init run `meshaccel restore` at boot",)
