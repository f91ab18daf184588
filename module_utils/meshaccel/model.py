# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The words every accelerator is written in: mode, action, plan, capability."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What JSON can hold. Recursive types need Python 3.12's ``type`` statement.
Json = Any


class Mode(str, enum.Enum):
    """What an accelerator, or one cgroup of it, does with traffic."""

    #: Accelerate.
    ON = "on"
    #: Loaded, and everything goes to the kernel's path.
    OFF = "off"
    #: Finish what is accelerated, accelerate nothing new.
    DRAIN = "drain"


@dataclass(frozen=True)
class Action:
    """One step of a plan: plain data, and the way back as plain data.

    ``undo`` restores what was observed before the plan was made. It is empty
    only where there is nothing to restore, or no way back: ``tidies`` marks the
    removal of what the plan has replaced, after which nothing is undone.
    """

    kind: str
    summary: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    undo: tuple[Action, ...] = ()
    tidies: bool = False

    def as_dict(self) -> dict[str, Json]:
        """Returns the action as Ansible and ``--json`` show it, without undo."""
        return {"kind": self.kind, "summary": self.summary}


#: Empty means: the node is as wished.
Plan = tuple[Action, ...]


class Answer(str, enum.Enum):
    """What a probe of the node said."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Capability:
    """One thing an accelerator needs of the kernel, as a probe found it.

    ``reason`` is empty for YES; ``lowest_kernel`` is the first mainline
    release that has the feature, for the error text only.
    """

    name: str
    answer: Answer
    reason: str = ""
    lowest_kernel: str = ""

    def __str__(self) -> str:
        return self.answer.value if self.answer is Answer.YES else f"{self.answer.value}: {self.reason}"
