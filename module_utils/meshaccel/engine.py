# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Applies plans: in order, undone in reverse on failure, observed again.

The engine knows no accelerator. It is given three functions and a table of
handlers, so every path through it can be tested without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import ApplyFailed, MeshaccelError
from .model import Action, Json, Plan

State = TypeVar("State")

#: Carries out one kind of action with its arguments.
Handler = Callable[[Mapping[str, Json]], None]
#: Called before each action; tests and fault injection hook in here.
BeforeAction = Callable[[Action], None]

#: In the place of an error of the way back.
NO_WAY_BACK = "all was done but the removal of what was replaced, so nothing was undone"


@dataclass(frozen=True)
class Outcome(Generic[State]):
    """What a run found, what it did, and what the node looks like now.

    In check mode ``actions`` is what would be done and ``after`` is ``before``.
    """

    actions: Plan
    before: State
    after: State

    @property
    def changed(self) -> bool:
        """True when there was, or in check mode would be, something to do."""
        return bool(self.actions)


@dataclass(frozen=True)
class Result:
    """What a converge found and did, in the words of the diff.

    ``after`` is what the plan leads to; ``notes`` is what the operator should know.
    """

    actions: Plan
    before: dict[str, Json]
    after: dict[str, Json]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """True when there was, or in check mode would be, something to do."""
        return bool(self.actions)


def ignore(_: Action) -> None:
    """The default hook before an action: nothing."""


def apply(plan: Plan, handlers: Mapping[str, Handler], before_action: BeforeAction = ignore) -> None:
    """Carries out a plan in order; on failure undoes what was done, in reverse.

    The failed action's own undo runs too, since it may have been half done; undo
    handlers therefore accept that there is nothing to undo.

    Raises ApplyFailed, which names the action and every error of the way back.
    """
    done: list[Action] = []
    for action in plan:
        try:
            before_action(action)
            done.append(action)
            handlers[action.kind](action.arguments)
        except (MeshaccelError, OSError) as error:
            undo_errors = undo(tuple(done), handlers)
            raise failure(action, str(error), undo_errors) from error
        except BaseException:
            # Ctrl-C, or a defect of ours: the node must not stay half done either.
            undo(tuple(done), handlers)
            raise


def undo(done: Plan, handlers: Mapping[str, Handler]) -> tuple[str, ...]:
    """Walks back over actions; returns the errors met, without stopping at one.

    Does nothing once what the plan has replaced is being removed.
    """
    if any(action.tidies for action in done):
        return (NO_WAY_BACK,)
    errors: list[str] = []
    for action in reversed(done):
        for step in action.undo:
            try:
                handlers[step.kind](step.arguments)
            except (MeshaccelError, OSError) as error:
                errors.append(f"{step.summary}: {error}")
    return tuple(errors)


def failure(action: Action, cause: str, undo_errors: tuple[str, ...]) -> ApplyFailed:
    """Builds the error for an action that failed and its way back."""
    if undo_errors:
        remedy = (
            "not all was undone (" + "; ".join(undo_errors) + "): "
            "run again once the causes are mended, or remove with state absent"
        )
    else:
        remedy = "everything done before it was undone: mend the cause and run again"
    return ApplyFailed(wanted=action.summary, found=cause, remedy=remedy, undo_errors=undo_errors)


def converge(
    observe: Callable[[], State],
    make_plan: Callable[[State], Plan],
    handlers: Mapping[str, Handler],
    *,
    check_mode: bool = False,
    before_action: BeforeAction = ignore,
) -> Outcome[State]:
    """Observes, plans, applies and observes again until nothing is left to do.

    Raises ApplyFailed when an action fails, or when the node still differs after
    all of them succeeded; in both cases the actions were undone.
    """
    before = observe()
    plan = make_plan(before)
    if check_mode or not plan:
        return Outcome(plan, before, before)
    apply(plan, handlers, before_action)
    try:
        after = observe()
        remaining = make_plan(after)
    except (MeshaccelError, OSError) as error:
        raise failure(plan[-1], f"then: {error}", undo(plan, handlers)) from error
    except BaseException:
        undo(plan, handlers)
        raise
    if remaining:
        left = "; ".join(action.summary for action in remaining)
        raise failure(plan[-1], f"the node still needs: {left}", undo(plan, handlers))
    return Outcome(plan, before, after)
