# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From wish and observation to actions. Pure: nothing is read, nothing changed.

Order matters for traffic. A hold is the first thing the kernel is told. What can
only change while nothing is taken from conntrack comes after a drain. Services
leave the table before the devices that their packets need; devices are ready before
services enter it. Switching on is last but for the file with the wish, and what
cannot be undone comes after that.

A run that is killed leaves the programs' mode behind: whatever it is, the next
run goes on from there, as from any other state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ... import file_actions, holds, unit_actions
from ...bpf import ownership
from ...bpf.object_file import ObjectFile, require_object
from ...model import Action, Plan
from ...paths import NodePaths
from . import NAME, map_plan, mode_plan, notrack, owned_files, settings_before, tencent
from .desired import Desired
from .devices import DeviceWish
from .follow_unit import unit_text
from .layout import ProgramMode
from .resolution import Resolved
from .state import DeviceState, Loaded, Observed, Program


def make_plan(desired: Desired, resolved: Resolved, observed: Observed, paths: NodePaths) -> Plan:
    """Returns the actions that make the node as wished; empty when it is.

    Raises Unsupported or InvalidInput when the node cannot take the accelerator.
    """
    if not desired.present:
        return removal(desired, observed, paths)
    if not resolved.attached:
        return going_native(desired, observed, paths)
    if observed.tencent.mode is not None:
        return going_tencent(desired, observed, paths)
    return going_bpf(desired, resolved, observed, paths)


def going_bpf(desired: Desired, resolved: Resolved, observed: Observed, paths: NodePaths) -> Plan:
    """Takes what is wished from conntrack."""
    object_file = require_object(observed.object_file, NAME)
    plan: list[Action] = [*ownership.mounting(observed.bpffs, paths)]
    plan += settings_before.changing(desired, observed, paths)
    if observed.loaded is not None and observed.loaded.usable and resolved.mode is ProgramMode.OFF:
        plan += mode_plan.set_mode(observed.loaded.mode, ProgramMode.OFF)
        observed = with_mode(observed, ProgramMode.OFF)
    if must_leave(desired, resolved, observed):
        plan += leaving(desired, observed)
        observed = left(observed)
    loaded = observed.loaded
    if loaded is not None and must_replace(loaded, desired):
        # What was attached cannot be again once it is unloaded.
        plan = [*(replace(action, undo=()) for action in plan), replaced_action(loaded)]
        loaded = None
    stale = () if loaded is None else loaded.stale_versions
    if loaded is None:
        plan.append(load_action(object_file, desired.maximum_sessions))
        loaded = Loaded(True, object_file.digest, maximum_sessions=desired.maximum_sessions, same_layout=True)
    elif loaded.digest != object_file.digest:
        plan += updating(loaded, object_file)
        stale = (*stale, loaded.digest)
    plan += map_plan.removing_services(loaded, resolved)
    plan += map_plan.writing_settings(loaded, resolved.settings)
    plan += map_plan.writing_networks(loaded, resolved)
    live = loaded.mode is not ProgramMode.OFF
    plan += map_plan.writing_devices(loaded, resolved, live=live)
    plan += attaching(resolved, observed, object_file.digest, loaded.digest if live else None)
    plan += lasting(notrack.make_plan(wished_table(resolved, observed), observed.notrack), live=live)
    plan += map_plan.writing_services(loaded, resolved)
    plan += mode_plan.switching(loaded.mode, resolved.mode, desired)
    plan += file_actions.written(paths.desired(NAME), desired.document(), observed.document)
    plan += following(observed, paths)
    # The version before is thrown away last: until then there is a way back to it.
    plan += [discard_action(version) for version in stale if version != object_file.digest]
    return tuple(plan)


def going_native(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Gives all back to conntrack, without breaking what is open if it ends in time."""
    plan: list[Action] = [*not_following(observed)]
    plan += leaving_tencent(desired, observed)
    plan += leaving(desired, observed)
    plan += settings_before.changing(desired, observed, paths)
    plan += file_actions.written(paths.desired(NAME), desired.document(), observed.document)
    plan += forgetting(observed, paths)
    return tuple(plan)


def going_tencent(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Has ip_vs of TencentOS in its own mode, which does what ours would do; ours stays away.

    Raises Unsupported when that takes a reload that was not asked for, or the node is not empty.
    """
    return (
        *tencent.make_plan(True, desired.tencent_reload, observed.tencent),
        *settings_before.changing(desired, observed, paths),
        *file_actions.written(paths.desired(NAME), desired.document(), observed.document),
    )


def leaving_tencent(desired: Desired, observed: Observed) -> Plan:
    """Has ip_vs of TencentOS as upstream's again, if it was us who changed it."""
    if not (observed.tencent.options or "").startswith(owned_files.MARK):
        return ()
    return tencent.make_plan(False, desired.tencent_reload, observed.tencent)


def removal(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Takes everything of ipvs_bpf off the node."""
    plan: list[Action] = [*not_following(observed), *leaving_tencent(desired, observed)]
    plan += leaving(desired, observed)
    plan += settings_before.giving_back(observed, paths)
    plan += file_actions.removed(paths.desired(NAME), observed.document)
    plan += holds.lifting(NAME, observed.hold)
    if observed.loaded is not None or observed.document is not None:
        plan += [clsact_action(state) for state in observed.devices if may_lose_clsact(state)]
    plan += forgetting(observed, paths)
    return tuple(plan)


def forgetting(observed: Observed, paths: NodePaths) -> Plan:
    """Unpins everything, and unmounts a bpffs of ours. There is no way back, and no need of one."""
    unloading = () if observed.loaded is None else (replace(unload_action(), tidies=True),)
    return (*unloading, *ownership.unmounting(observed.bpffs, paths))


# ---- leaving ----


def must_leave(desired: Desired, resolved: Resolved, observed: Observed) -> bool:
    """True when what differs can only change while nothing is taken from conntrack."""
    loaded = observed.loaded
    if loaded is None:
        return any(state.touched for state in observed.devices) or observed.notrack.present
    if must_replace(loaded, desired):
        return True
    if loaded.settings is not None and loaded.settings.marks != resolved.settings.marks:
        # Fresh pins have no marks yet.
        return any(loaded.settings.marks)
    return loaded.mode is not ProgramMode.OFF and any(
        unwished(state, resolved) for state in observed.devices if state.egress is not None
    )


def unwished(state: DeviceState, resolved: Resolved) -> bool:
    """True for a device that a changed pattern leaves out: sessions may go by it.

    One that became a part of another device has none: no route leads by it.
    """
    wished = {wish.link.index for wish in resolved.devices}
    return not state.gone and state.link.index not in wished and not state.link.master_index


def must_replace(loaded: Loaded, desired: Desired) -> bool:
    """True when the loaded version cannot be updated in place."""
    return not loaded.usable or loaded.maximum_sessions != desired.maximum_sessions


def leaving(desired: Desired, observed: Observed) -> Plan:
    """Has sessions end, switches off, detaches, and takes the nft table away."""
    loaded = observed.loaded
    plan: list[Action] = []
    if loaded is not None and loaded.usable:
        plan += mode_plan.draining(loaded.mode, desired)
    plan += [detach_action(state) for state in observed.devices if state.touched]
    plan += notrack.make_plan(None, observed.notrack)
    return tuple(plan)


def left(observed: Observed) -> Observed:
    """Returns what leaving() leads to."""
    return replace(
        with_mode(observed, ProgramMode.OFF),
        devices=tuple(replace(state, ingress=None, egress=None) for state in observed.devices),
        notrack=notrack.Observed(),
    )


def with_mode(observed: Observed, mode: ProgramMode) -> Observed:
    """Returns what is observed once the mode is set."""
    loaded = observed.loaded
    return observed if loaded is None else replace(observed, loaded=replace(loaded, mode=mode))


# ---- versions ----


def load_action(object_file: ObjectFile, maximum_sessions: int) -> Action:
    """Builds the load of an object, switched off, and its way back."""
    return Action(
        "ipvs_bpf.load",
        f"load ipvs_bpf {object_file} for {maximum_sessions} sessions",
        {**object_file.arguments(), "maximum_sessions": maximum_sessions},
        (unload_action(),),
    )


def unload_action() -> Action:
    """Builds the removal of every pin."""
    return Action("ipvs_bpf.unload", "unload ipvs_bpf", {})


def replaced_action(loaded: Loaded) -> Action:
    """Builds the removal of a version that cannot be updated in place, of which there is no way back."""
    reason = f"ipvs_bpf {loaded.digest or 'with missing pins'} was unloaded and cannot be loaded again"
    lost = Action("ipvs_bpf.cannot_reload", "load the version before", {"reason": reason})
    return replace(unload_action(), undo=(lost,))


def updating(loaded: Loaded, object_file: ObjectFile) -> Plan:
    """Loads another version's programs on the maps there are; attaching() then swaps each filter's."""
    load = Action(
        "ipvs_bpf.load_programs",
        f"load ipvs_bpf {object_file} beside {loaded.digest}",
        object_file.arguments(),
        (discard_action(object_file.digest),),
    )
    return (load, run_action(object_file.digest, (run_action(loaded.digest),)))


def run_action(digest: str, undo: Plan = ()) -> Action:
    """Builds the choice of a loaded version as the one that is attached from now on."""
    return Action("ipvs_bpf.run_version", f"switch to ipvs_bpf {digest}", {"digest": digest}, undo)


def discard_action(digest: str) -> Action:
    """Builds the removal of a version's program pins."""
    return Action("ipvs_bpf.discard_programs", f"discard ipvs_bpf {digest}", {"digest": digest}, tidies=True)


# ---- devices ----


@dataclass(frozen=True)
class Attachment:
    """What is to hang at a device."""

    ingress: Program | None
    egress: Program | None


def lasting(plan: Plan, *, live: bool) -> Plan:
    """Leaves out the way back where sessions may have begun by it: what a device needs stays for them."""
    return tuple(replace(action, undo=()) for action in plan) if live else plan


def attaching(resolved: Resolved, observed: Observed, digest: str, live_digest: str | None) -> Plan:
    """Attaches to devices that lack a program, swaps it where another version's runs, leaves the others.

    ``live_digest`` is the version that new sessions go by meanwhile, if any do: on the
    way back a device that lacked a program keeps one, that version's.
    """
    wished = {wish.link.index: wish for wish in resolved.devices}
    plan: list[Action] = []
    for state in observed.devices:
        wish = wished.get(state.link.index)
        if state.gone:
            continue
        if wish is None:
            plan += [detach_action(state)] if state.touched else []
            continue
        attachment = attachment_of(wish, digest)
        if (state.ingress, state.egress) != (attachment.ingress, attachment.egress):
            before = restorable(state)
            if live_digest is not None and not state.touched:
                before = attachment_of(wish, live_digest)
            plan.append(attach_action(state, attachment, before))
    return tuple(plan)


def attachment_of(wish: DeviceWish, digest: str) -> Attachment:
    """Returns the programs of a version for a device."""
    ingress, egress = wish.programs
    return Attachment(Program(digest, ingress), None if egress is None else Program(digest, egress))


def attach_action(state: DeviceState, attachment: Attachment, before: Attachment) -> Action:
    """Builds the attachment to a device, and the way back."""
    nothing = before == Attachment(None, None)
    words = f"detach from {state.link.name}" if nothing else f"attach to {state.link.name} as before"
    undo = place_action(state, before, words)
    action = place_action(state, attachment, f"attach to {state.link.name}")
    return replace(action, undo=(undo,))


def detach_action(state: DeviceState) -> Action:
    """Builds the detachment from a device; clsact stays."""
    action = place_action(state, Attachment(None, None), f"detach from {state.link.name}")
    undo = place_action(state, restorable(state), f"attach to {state.link.name} as before")
    return replace(action, undo=(undo,))


def restorable(state: DeviceState) -> Attachment:
    """Returns what hung at a device, as far as its pins are known."""
    ingress, egress = (
        program if program is not None and program.digest else None
        for program in (state.ingress, state.egress)
    )
    return Attachment(ingress, egress)


def place_action(state: DeviceState, attachment: Attachment, summary: str) -> Action:
    """Builds the placing of programs, or of none, at both directions of a device."""
    programs = {"ingress": attachment.ingress, "egress": attachment.egress}
    return Action(
        "ipvs_bpf.place",
        summary,
        {
            "device": state.link.name,
            "index": state.link.index,
            **{
                direction: None if program is None else [program.digest, program.name]
                for direction, program in programs.items()
            },
        },
    )


def wished_table(resolved: Resolved, observed: Observed) -> notrack.Table | None:
    """Returns the nft table; none while there is no conntrack to go past."""
    return notrack.Table(*resolved.settings.marks) if observed.surroundings.conntrack else None


def may_lose_clsact(state: DeviceState) -> bool:
    """True when clsact is of no use to anybody once ours is gone."""
    return state.clsact and not state.gone and not state.foreign


def clsact_action(state: DeviceState) -> Action:
    """Builds the removal of a clsact that nobody uses."""
    arguments = {"device": state.link.name, "index": state.link.index}
    return Action("ipvs_bpf.remove_clsact", f"remove clsact from {state.link.name}", arguments, tidies=True)


# ---- the follow daemon ----


def following(observed: Observed, paths: NodePaths) -> Plan:
    """Has the daemon run that follows devices and services."""
    if observed.follow_unit is None:
        return ()
    return unit_actions.installed(observed.follow_unit, unit_text(paths), starts=True)


def not_following(observed: Observed) -> Plan:
    """Ends the daemon."""
    return () if observed.follow_unit is None else unit_actions.removed(observed.follow_unit, starts=True)
