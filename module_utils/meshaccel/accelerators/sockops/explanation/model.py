# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an explanation is made from, and what it says. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....model import Mode
from ..inspection.sockets import InspectedSocket
from ..observe import Attachment
from .words import Cause, Use


@dataclass(frozen=True)
class Program:
    """A process that has an end open; ``name`` is its executable's."""

    process_id: int
    name: str
    #: What its configuration or its open files say of its use of sockets.
    uses: frozenset[Use] = frozenset()
    #: Inode numbers of the sockets at which a thread waits in MSG_WAITALL.
    waits_for_all: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"{self.name} (process {self.process_id})"


@dataclass(frozen=True)
class End:
    """One end of a connection. ``cgroup`` is None when the cgroup is gone."""

    socket: InspectedSocket
    cgroup: str | None
    #: The innermost opted-in cgroup that the socket belongs to.
    policy: Attachment | None
    programs: tuple[Program, ...] = ()

    @property
    def place(self) -> str:
        """The end's cgroup, for a sentence."""
        return f"cgroup {self.cgroup}" if self.cgroup is not None else "a cgroup that is gone"


@dataclass(frozen=True)
class Connection:
    """A connection with one or both ends on this node; ``near`` is the client's if both are."""

    near: End
    far: End | None = None
    #: An unpaired socket of this node has the same addresses the other way round.
    opposite_unpaired: bool = False

    @property
    def ends(self) -> tuple[End, ...]:
        """The ends that are on this node."""
        return (self.near,) if self.far is None else (self.near, self.far)


@dataclass(frozen=True)
class Switches:
    """The node's live mode, and what an operator holds."""

    mode: Mode
    held_mode: Mode | None = None
    held_cgroups: Mapping[str, Mode] = field(default_factory=dict)
    #: Cgroups that are off because of a denied executable, with its process in words.
    denied_cgroups: Mapping[str, str] = field(default_factory=dict)

    def holder(self, cgroup: str | None = None) -> str:
        """Returns by whom the node's mode, or a cgroup's, is what it is."""
        if cgroup is not None and cgroup in self.denied_cgroups:
            return f"because of {self.denied_cgroups[cgroup]}, which is in sockops_denied_executables"
        held = self.held_mode is not None if cgroup is None else cgroup in self.held_cgroups
        if not held:
            return "as the playbook wishes"
        which = "" if cgroup is None else f" --cgroup {cgroup}"
        return f"held by an operator; lift with: meshaccel on sockops{which}"


@dataclass(frozen=True)
class Verdict:
    """Why a connection, or one direction of it, goes its way."""

    cause: Cause
    sentence: str


@dataclass(frozen=True)
class IncompatibleUse:
    """A program's use of a socket that does not go together with acceleration."""

    use: Use
    program: str
    #: What it does, what it sees then, and what to do.
    sentence: str


@dataclass(frozen=True)
class Explanation:
    """What is known of one connection. Bytes are of both ways, as far as seen from this node."""

    connection: Connection
    redirected: bool
    verdict: Verdict
    redirected_bytes: int
    tcp_bytes: int
    uses: tuple[IncompatibleUse, ...] = ()
