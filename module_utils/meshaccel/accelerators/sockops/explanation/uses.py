# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Uses of a socket that do not go together with acceleration. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..inspection.sockets import InspectedSocket
from .model import End, IncompatibleUse, Program
from .words import USES, Use

KERNEL_TLS = "tls"

#: What the socket itself shows.
SEEN_AT_SOCKETS: Mapping[Use, Callable[[InspectedSocket], bool]] = {
    Use.LOW_WATER_MARK: lambda socket: socket.receive_low_water_mark > 1,
    Use.CORK: lambda socket: socket.cork,
    Use.ZERO_COPY: lambda socket: socket.zero_copy,
    Use.URGENT: lambda socket: socket.urgent_data,
    Use.KERNEL_TLS: lambda socket: socket.upper_layer_protocol == KERNEL_TLS,
}


def incompatible_uses(end: End) -> list[IncompatibleUse]:
    """Returns the incompatible uses of one end that can be seen now."""
    who = " and ".join(map(str, end.programs)) or "its program"
    found = [described(use, who) for use, seen in SEEN_AT_SOCKETS.items() if seen(end.socket)]
    for program in end.programs:
        found += [described(use, str(program)) for use in uses_of(program, end.socket)]
    return found


def uses_of(program: Program, socket: InspectedSocket) -> list[Use]:
    """Returns what is known of a program's own use of a socket."""
    waiting = [Use.WAIT_ALL] if socket.inode in program.waits_for_all else []
    return sorted(program.uses) + waiting


def described(use: Use, program: str) -> IncompatibleUse:
    """Returns a use in words."""
    does, sees = USES[use]
    return IncompatibleUse(use, program, f"{program} {does}: {sees}")
