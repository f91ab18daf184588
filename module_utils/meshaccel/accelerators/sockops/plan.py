# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From wish and observation to actions. Pure: nothing is read, nothing changed.

Order matters for traffic. Switching off comes first and is one write; then
redirects under way settle, sockets are released, and only then are programs
detached or replaced. Switching on is the last thing but the file that commits
the wish for the next boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ... import file_actions, holds
from ...bpf import ownership
from ...bpf.object_file import ObjectFile, require_object
from ...errors import Unsupported
from ...model import Action, Mode, Plan
from ...paths import NodePaths
from . import NAME, layout
from .denials.plan import denying
from .desired import Desired
from .observe import Attachment, Loaded, Observed
from .relays import plan as relays
from .resolution import Policy, Resolved, missing_cgroups, resolve

#: How long a redirect that was decided just before the switch may still take.
SETTLE_SECONDS = 1.0
#: How long absent waits for readers to read what was redirected to them.
RELEASE_SECONDS = 15.0


def make_plan(desired: Desired, observed: Observed, paths: NodePaths, *, skip_missing: bool = False) -> Plan:
    """Returns the actions that make the node as wished; empty when it is.

    With skip_missing (restore at boot) a cgroup that is not there yet is left
    out. Raises InvalidInput for a missing cgroup otherwise, Unsupported when
    the node cannot take the accelerator.
    """
    if not desired.present:
        return removal(observed, paths)
    resolved = resolve(desired, observed)
    if resolved.missing and not skip_missing:
        raise missing_cgroups(desired, resolved)
    object_file = require_object(observed.object_file, NAME)
    plan = list(ownership.mounting(observed.bpffs, paths))
    loaded, relays_found = observed.loaded, observed.relays
    relays_wished = wished_relays(desired, observed, resolved)
    stale = list(loaded.stale_versions) if loaded is not None else []
    if loaded is not None and loaded.usable:
        plan += switching_off(loaded, resolved)
        loaded = replace(loaded, mode=mode_meanwhile(loaded.mode, resolved.mode))
    if loaded is not None and must_replace(loaded, desired):
        plan += relays.unloading(relays_found, relays_wished)
        plan += unloading(loaded, object_file)
        loaded, stale, relays_found = None, [], replace(relays_found, loaded=None)
    if loaded is None:
        plan += loading(object_file, desired)
        loaded = Loaded(True, object_file.digest, Mode.OFF, desired.maximum_connections, True)
    elif loaded.digest != object_file.digest:
        plan += updating(loaded, object_file)
        stale.append(loaded.digest)
    plan += denying(loaded.denied_networks, observed.denied.networks)
    plan += leaving(loaded, resolved)
    plan += joining(loaded, resolved)
    relayed = relays.make_changes(relays_wished, relays_found)
    plan += relayed.now
    plan += set_mode(loaded.mode, resolved.mode)
    # The version before is thrown away last: until then there is a way back to it.
    # The wish's file comes before that: after a crash the node boots into the old one.
    committed = file_actions.written(paths.desired(NAME), desired.document(), observed.document)
    discarded = [discard_programs(version) for version in stale if version != object_file.digest]
    plan = [*plan, *committed, *discarded, *relayed.last]
    # Last of all: it cannot fail, and needs everything else in force.
    adopts = plan and desired.adopt_existing and resolved.mode is Mode.ON
    return (*plan, *([adopt_action(object_file)] if adopts else []))


def wished_relays(desired: Desired, observed: Observed, resolved: Resolved) -> relays.Wish:
    """Returns what relays need to know: the cgroups of their servers, by id."""
    named = {policy.cgroup_id: policy.path for policy in resolved.policies}
    attached = known_paths(observed.loaded)
    return relays.Wish(desired.relays, named, {**attached, **named}, desired.maximum_connections)


def known_paths(loaded: Loaded | None) -> dict[int, str]:
    """Returns the paths of the attached cgroups that are still there, by id."""
    attachments = loaded.attachments if loaded is not None else ()
    return {entry.cgroup_id: entry.path for entry in attachments if entry.path is not None}


def must_replace(loaded: Loaded, desired: Desired) -> bool:
    """True when the loaded version cannot be updated in place."""
    return not loaded.usable or loaded.maximum_connections != desired.maximum_connections


def loading(object_file: ObjectFile, desired: Desired) -> Plan:
    """Loads the programs, switched off, attached to no cgroup."""
    return (load_action(object_file, desired.maximum_connections),)


def load_action(object_file: ObjectFile, maximum_connections: int) -> Action:
    """Builds the load of an object and its way back."""
    return Action(
        "sockops.load",
        f"load sockops {object_file} for {maximum_connections} connections",
        {
            **object_file.arguments(),
            "maximum_connections": maximum_connections,
        },
        (Action("sockops.unload", "unload sockops"),),
    )


def unloading(loaded: Loaded, object_file: ObjectFile | None) -> Plan:
    """Switches off, releases every socket without loss, removes all pins.

    With pins missing there is no switch left to write; unpinning the rest clears
    the tail-call table, which sends everything to TCP as well.
    """
    unload = Action("sockops.unload", "unload sockops", {}, reloading(loaded, object_file))
    if not loaded.usable:
        return (unload,)
    return (*set_mode(loaded.mode, Mode.OFF), release_action(), unload)


def reloading(loaded: Loaded, object_file: ObjectFile | None) -> Plan:
    """The way back of an unload: everything as it was observed, where that can be."""
    if object_file is None or not loaded.usable or object_file.digest != loaded.digest:
        reason = f"the version {loaded.digest or 'with missing pins'} cannot be loaded again"
        return (Action("sockops.cannot_reload", "load the version before", {"reason": reason}),)
    steps = [load_action(object_file, loaded.maximum_connections)]
    steps += denying((), loaded.denied_networks)
    for attachment in loaded.attachments:
        steps += rejoining(attachment)
    steps += set_mode(Mode.OFF, loaded.mode)
    return tuple(steps)


def rejoining(entry: Attachment) -> list[Action]:
    """Restores a policy as it was observed, attached if it was."""
    if entry.path is None:
        return []
    policy = policy_of(entry)
    steps = [write_policy(entry.policy, policy)]
    if entry.attached:
        steps.append(attach_action(entry.policy, policy))
    return steps


def updating(loaded: Loaded, object_file: ObjectFile) -> Plan:
    """Swaps every program for the new version's; live sockets included."""
    return (
        Action(
            "sockops.load_programs",
            f"load sockops {object_file} beside {loaded.digest}",
            object_file.arguments(),
            (discard_programs(object_file.digest),),
        ),
        switch_programs(object_file.digest, (switch_programs(loaded.digest, ()),)),
    )


def switch_programs(digest: str, undo: Plan) -> Action:
    """Builds the swap to a loaded version."""
    return Action("sockops.switch_programs", f"switch to sockops {digest}", {"digest": digest}, undo)


def discard_programs(digest: str) -> Action:
    """Builds the removal of a version's program pins."""
    return Action("sockops.discard_programs", f"discard sockops {digest}", {"digest": digest}, tidies=True)


def switching_off(loaded: Loaded, resolved: Resolved) -> Plan:
    """The node's switch, when it goes to off or drain: before anything else."""
    if resolved.mode is Mode.ON:
        return ()
    released = resolved.mode is Mode.OFF and loaded.mode is not Mode.OFF
    return (*set_mode(loaded.mode, resolved.mode), *([switched_off()] if released else []))


def mode_meanwhile(loaded: Mode, wished: Mode) -> Mode:
    """The mode in force between switching off, first, and switching on, last."""
    return loaded if wished is Mode.ON else wished


def set_mode(before: Mode, after: Mode) -> Plan:
    """Writes the node's switch, if it is not so already."""
    if before is after:
        return ()
    return (mode_action(after, (mode_action(before, ()),)),)


def mode_action(mode: Mode, undo: Plan) -> Action:
    """Builds the write of the node's switch."""
    return Action("sockops.set_mode", f"switch sockops {mode.value}", {"mode": mode.value}, undo)


def release_action() -> Action:
    """Builds the release of all sockets whose policy is off.

    It has no way back and needs none: a released socket goes on by TCP.
    """
    return Action(
        "sockops.release",
        "give sockets that are switched off back to TCP",
        {"settle_seconds": SETTLE_SECONDS, "deadline_seconds": RELEASE_SECONDS},
    )


def switched_off() -> Action:
    """Builds the release that follows a switch to off.

    A socket in the hash is not quite a plain one: FIONREAD does not see what came
    by TCP. Who does not read in time keeps his place and goes by TCP all the same.
    """
    return Action(
        "sockops.release",
        "give connections back to TCP",
        {"settle_seconds": SETTLE_SECONDS, "deadline_seconds": SETTLE_SECONDS},
    )


def adopt_action(object_file: ObjectFile) -> Action:
    """Builds the adoption of live connections.

    A run that changes something adopts; one that finds the node as wished does
    not look. A later switch to off gives back what was adopted as all else.
    """
    return Action(
        "sockops.adopt",
        "take over the live connections between opted-in cgroups",
        object_file.arguments(),
    )


def leaving(loaded: Loaded, resolved: Resolved) -> Plan:
    """Takes cgroups out that are no longer wished or no longer there."""
    wished = {policy.cgroup_id for policy in resolved.policies}
    gone = [entry for entry in loaded.attachments if entry.cgroup_id not in wished]
    if not gone:
        return ()
    plan: list[Action] = []
    for entry in gone:
        policy = policy_of(entry)
        if policy.mode is not Mode.OFF:
            undo = (write_policy(entry.policy, policy),)
            plan.append(write_policy(entry.policy, replace(policy, mode=Mode.OFF), undo))
    plan.append(release_action())
    for entry in gone:
        place = {"policy": entry.policy, "path": entry.path, "cgroup_id": entry.cgroup_id}
        plan.append(
            Action(
                "sockops.detach",
                f"leave cgroup {entry.path or 'that is gone'}",
                place,
                tuple(rejoining(entry)),
            )
        )
    return tuple(plan)


def joining(loaded: Loaded, resolved: Resolved) -> Plan:
    """Writes policies that differ and attaches to cgroups not attached yet."""
    present = {entry.cgroup_id: entry for entry in loaded.attachments}
    used = {entry.policy for entry in loaded.attachments}
    free = (index for index in range(1, layout.POLICIES) if index not in used)
    plan: list[Action] = []
    released = False
    for policy in resolved.policies:
        entry = present.get(policy.cgroup_id)
        if entry is None:
            index = next_free(free, policy)
            clear = Action("sockops.clear_policy", "clear the policy", {"policy": index})
            plan.append(write_policy(index, policy, (clear,)))
        else:
            index = entry.policy
            if policy_of(entry) != policy:
                plan.append(write_policy(index, policy, undo_of_policy(entry)))
                released |= policy.mode is Mode.OFF and entry.mode is not Mode.OFF
        if entry is None or not entry.attached:
            plan.append(attach_action(index, policy, undo_of_policy(entry)))
    if released:
        plan.append(switched_off())
    return tuple(plan)


def next_free(free: Iterator[int], policy: Policy) -> int:
    """Takes the next free policy index."""
    index = next(free, None)
    if index is None:
        raise Unsupported(
            wanted=f"a policy for cgroup {policy.path}",
            found=f"all {layout.POLICIES - 1} taken, some by cgroups that are just leaving",
            remedy="run again, or name parents instead of single cgroups",
        )
    return index


def policy_of(entry: Attachment) -> Policy:
    """Returns an observed attachment as a policy; a gone cgroup's has words for a path."""
    path = entry.path or f"that is gone (id {entry.cgroup_id})"
    return Policy(entry.cgroup_id, path, entry.mode, entry.ports, entry.receive_memory_limit)


def undo_of_policy(entry: Attachment | None) -> Plan:
    """The way back of a policy that is rewritten, or cleared by a detach."""
    return () if entry is None else (write_policy(entry.policy, policy_of(entry)),)


def write_policy(index: int, policy: Policy, undo: Plan = ()) -> Action:
    """Builds the write of one policy."""
    ports = ", ".join(map(str, policy.ports)) or "all"
    return Action(
        "sockops.write_policy",
        f"cgroup {policy.path}: mode {policy.mode.value}, ports {ports}",
        policy.arguments(index),
        undo,
    )


def attach_action(index: int, policy: Policy, policy_before: Plan = ()) -> Action:
    """Builds the attachment of a cgroup to its policy, and its way back."""
    arguments = {"policy": index, "path": policy.path, "cgroup_id": policy.cgroup_id}
    return Action(
        "sockops.attach",
        f"join cgroup {policy.path}",
        arguments,
        (
            Action("sockops.detach", f"leave cgroup {policy.path}", arguments),
            *policy_before,
        ),
    )


def removal(observed: Observed, paths: NodePaths) -> Plan:
    """Takes everything of sockops off the node."""
    plan: list[Action] = []
    if observed.loaded is not None:
        before = relays.Wish((), {}, known_paths(observed.loaded), observed.loaded.maximum_connections)
        plan += relays.unloading(observed.relays, before)
        plan += unloading(observed.loaded, observed.object_file)
    plan += file_actions.removed(paths.desired(NAME), observed.document)
    plan += holds.lifting(NAME, observed.hold)
    plan += ownership.unmounting(observed.bpffs, paths)
    return tuple(plan)
