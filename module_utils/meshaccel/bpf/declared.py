# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""One declared thing below our pins directory, made so under the node's lock."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Protocol, TypeVar

from .. import engine
from ..lock import node_lock
from ..model import Json, Plan
from ..paths import NodePaths

State = TypeVar("State")


class Declared(Protocol[State]):
    """A wish and how to make it so."""

    @property
    def purpose(self) -> str:
        """Who holds the node's lock meanwhile, for others that wait."""

    def observe(self) -> State:
        """Reads the node's state as far as the wish needs it."""

    def make_plan(self, observed: State) -> Plan:
        """Returns the actions that are missing. Pure."""

    def handlers(self) -> contextlib.AbstractContextManager[Mapping[str, engine.Handler]]:
        """Opens the handlers by kind of action, for one run."""

    def describe_observed(self, observed: State) -> dict[str, Json]:
        """Returns what was observed, for the diff."""

    def describe(self, observed: State) -> dict[str, Json]:
        """Returns what the plan leads to, in the same words."""


def converge(
    declared: Declared[State],
    paths: NodePaths,
    *,
    check_mode: bool = False,
    before_action: engine.BeforeAction = engine.ignore,
) -> engine.Result:
    """Makes the node as declared. Check mode changes nothing and takes no lock.

    Raises MeshaccelError; on failure the node is back where it was, or the error
    says what is not.
    """
    with contextlib.ExitStack() as stack:
        if not check_mode:
            stack.enter_context(node_lock(paths, declared.purpose))
        handlers = stack.enter_context(declared.handlers())
        outcome = engine.converge(
            declared.observe,
            declared.make_plan,
            handlers,
            check_mode=check_mode,
            before_action=before_action,
        )
    return engine.Result(
        outcome.actions, declared.describe_observed(outcome.before), declared.describe(outcome.before)
    )
