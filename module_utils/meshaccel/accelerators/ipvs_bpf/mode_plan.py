# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs' mode, from each to each other, with nothing broken. Pure.

On: what conntrack has begun stays its own. So packets are observed for some
seconds, in which every flow that is alive shows itself and is noted, and the ports
that conntrack has given away are reserved; then new flows are taken.

Off: new flows are conntrack's at once, and those that are ours have time to end.
An abrupt off would leave masqueraded ones without their way back.
"""

from __future__ import annotations

from ...model import Action, Plan
from .desired import Desired
from .layout import ProgramMode

#: How long the way back from a failed switch waits for sessions.
UNDO_DRAIN_SECONDS = 10


def switching(before: ProgramMode, after: ProgramMode, desired: Desired) -> Plan:
    """Returns the actions from one mode to another that a wish or a hold asks for."""
    if before is after:
        return ()
    if after is not ProgramMode.ON:
        return set_mode(before, after)
    # What is left from before an off is known to conntrack, or dead.
    forget = (forget_action(),) if before is ProgramMode.OFF else ()
    return (
        *forget,
        observe_action(desired, (mode_action(before),)),
        Action("ipvs_bpf.reserve", "reserve the source ports that conntrack has given away"),
        mode_action(ProgramMode.ON, (mode_action(ProgramMode.DRAIN), drain_action(UNDO_DRAIN_SECONDS))),
    )


def draining(before: ProgramMode, desired: Desired) -> Plan:
    """Returns the actions to off that give sessions time to end."""
    if before is ProgramMode.OFF:
        return ()
    back = (resume_action(desired),) if before is ProgramMode.ON else ()
    start = () if before is ProgramMode.DRAIN else (mode_action(ProgramMode.DRAIN, back),)
    return (
        *start,
        drain_action(desired.drain_seconds),
        mode_action(ProgramMode.OFF, (mode_action(ProgramMode.DRAIN),)),
    )


def set_mode(before: ProgramMode, after: ProgramMode) -> Plan:
    """Writes the mode at once, if it is not so already."""
    return () if before is after else (mode_action(after, (mode_action(before),)),)


def mode_action(mode: ProgramMode, undo: Plan = ()) -> Action:
    """Builds the write of the mode: one map write, and every packet sees it."""
    return Action("ipvs_bpf.set_mode", f"switch ipvs_bpf {mode.value}", {"mode": mode.value}, undo)


def observe_action(desired: Desired, undo: Plan) -> Action:
    """Builds the seconds in which flows that are alive show themselves."""
    seconds = desired.observe_seconds
    return Action(
        "ipvs_bpf.observe",
        f"note for {seconds} s the flows that conntrack has",
        {"seconds": seconds},
        undo,
    )


def drain_action(seconds: int) -> Action:
    """Builds the wait for sessions to end."""
    return Action("ipvs_bpf.drain", f"wait up to {seconds} s for sessions to end", {"seconds": seconds})


def resume_action(desired: Desired) -> Action:
    """Builds the way back from a drain: as from any mode, through observation."""
    return Action(
        "ipvs_bpf.resume", "take new flows from conntrack again", {"seconds": desired.observe_seconds}
    )


def forget_action() -> Action:
    """Builds the removal of flows from before an off."""
    return Action("ipvs_bpf.forget_flows", "forget flows from before ipvs_bpf was off")
