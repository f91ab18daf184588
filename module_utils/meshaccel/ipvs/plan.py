# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From wish and observation to actions. Pure: nothing is read, nothing changed.

Order matters for traffic. What comes is there before anything leaves; settings are
edited in place; servers that leave get weight 0, then there is one wait for the
connections of all of them, and only then they go. A service is made anew only when
it is another one to the kernel: protocol, address and port, or firewall mark.

The wish is kept first, so that what a killed run has made is known as ours, with
what is leaving; once that is gone, without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import Unsupported
from ..file_actions import removed, written
from ..model import Action, Plan
from ..paths import NodePaths
from . import NAME, document
from .desired import Desired
from .model import RealServer, ServiceKey, VirtualService
from .observe import Observed


@dataclass(frozen=True)
class Difference:
    """How the table differs from the wish."""

    coming: tuple[VirtualService, ...]
    #: As they are, and as they are wished.
    changing: tuple[tuple[VirtualService, VirtualService], ...]
    going: tuple[VirtualService, ...]

    @property
    def leaving(self) -> Iterator[tuple[VirtualService, RealServer]]:
        """The servers that leave, with those of services that go."""
        for before, after in self.changing:
            stay = {server.key for server in after.servers}
            yield from ((before, server) for server in before.servers if server.key not in stay)
        yield from ((service, server) for service in self.going for server in service.servers)


def compare(desired: Desired, observed: Observed) -> Difference:
    """Compares; what is neither listed nor ours is left alone, but for ``purge``."""
    table = {service.key: service for service in observed.services}
    wished = {service.key: service for service in wanted(desired)}
    coming = tuple(service for key, service in wished.items() if key not in table)
    changing = tuple(
        (table[key], service) for key, service in wished.items() if key in table and table[key] != service
    )
    removable = table.keys() if desired.present and desired.purge else observed.kept.ours
    going = tuple(service for key, service in table.items() if key not in wished and key in removable)
    return Difference(coming, changing, going)


def wanted(desired: Desired) -> tuple[VirtualService, ...]:
    """Returns the services that are to be there."""
    return desired.services if desired.present else ()


def make_plan(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Returns the actions that make the node as wished; empty when it is.

    Raises Unsupported for a scheduler that the kernel does not have.
    """
    require_schedulers(desired, observed)
    difference = compare(desired, observed)
    plan: list[Action] = []
    if difference.coming and not observed.loaded:
        plan.append(Action("ipvs.load", "load the kernel module ip_vs"))
    started = started_document(desired, observed, difference)
    if started is not None:
        plan += written(paths.desired(NAME), started, observed.document)
    plan += map(making, difference.coming)
    for before, after in difference.changing:
        plan += changing(before, after)
    plan += leaving(difference, desired.drain_seconds)
    return (*plan, *finishing(desired, observed, started, paths))


def require_schedulers(desired: Desired, observed: Observed) -> None:
    """Raises Unsupported for a wished scheduler that the kernel neither has nor can load."""
    if observed.schedulers is None:
        return
    missing = {service.scheduler for service in wanted(desired)} - observed.schedulers
    if missing:
        raise no_scheduler(", ".join(sorted(missing)), observed.schedulers)


def no_scheduler(name: str, there: Iterable[str]) -> Unsupported:
    """Builds the error for a scheduler that is not there."""
    return Unsupported(
        wanted=f"the scheduler {name} in this kernel",
        found="only " + (", ".join(sorted(there)) or "none"),
        remedy="take one of these, or install the kernel's module ip_vs_NAME",
    )


def started_document(desired: Desired, observed: Observed, difference: Difference) -> bytes | None:
    """Returns what is kept while services leave; None when nothing is to be kept any more."""
    if not desired.present:
        return None
    leaving = {service.key for service in difference.going} & observed.kept.ours
    return document.write(desired, adopted(desired, observed), leaving)


def finishing(desired: Desired, observed: Observed, started: bytes | None, paths: NodePaths) -> Plan:
    """Keeps the wish without what has left, or nothing at all."""
    path = paths.desired(NAME)
    if started is None:
        return removed(path, observed.document)
    return written(path, document.write(desired, adopted(desired, observed), ()), started)


def adopted(desired: Desired, observed: Observed) -> set[ServiceKey]:
    """Returns the listed services that somebody else has made."""
    there = {service.key for service in observed.services}
    wished = there.intersection(service.key for service in desired.services)
    return wished - observed.kept.ours


def making(service: VirtualService) -> Action:
    """Makes a service with its servers."""
    arguments = {"service": service}
    undo = Action("ipvs.remove_service", f"remove {service}", arguments)
    servers = f"{len(service.servers)} servers" if len(service.servers) != 1 else "1 server"
    return Action(
        "ipvs.make_service", f"make {service} ({service.scheduler}) with {servers}", arguments, (undo,)
    )


def changing(before: VirtualService, after: VirtualService) -> Plan:
    """Brings a service and the servers that come or stay to their settings."""
    there = {server.key: server for server in before.servers}
    wished = [server for server in after.servers if there.get(server.key) != server]
    plan = [adding(after, server) for server in wished if server.key not in there]
    plan += [setting(after, there[server.key], server) for server in wished if server.key in there]
    if before.settings != after.settings:
        words = f"set {after} to {setting_words(after)}"
        undo = Action("ipvs.set_service", f"set {before} back", {"service": before})
        plan.append(Action("ipvs.set_service", words, {"service": after}, (undo,)))
    return tuple(plan)


def setting_words(service: VirtualService) -> str:
    """Returns the settings of a service for a reader."""
    words = [service.scheduler, *service.flags]
    if service.persistence_timeout is not None:
        words.append(f"persistent {service.persistence_timeout} s {service.persistence_netmask}")
    if service.persistence_engine:
        words.append(service.persistence_engine)
    return " ".join(words)


def server_arguments(service: VirtualService, server: RealServer) -> dict[str, object]:
    """Returns the arguments of an action on a server."""
    return {"key": service.key, "server": server}


def adding(service: VirtualService, server: RealServer) -> Action:
    """Adds a server to a service."""
    arguments = server_arguments(service, server)
    undo = Action("ipvs.remove_server", f"remove {server} from {service}", arguments)
    return Action("ipvs.add_server", f"add {server} to {service}", arguments, (undo,))


def setting(service: VirtualService, before: RealServer, after: RealServer) -> Action:
    """Edits a server in place."""
    undo = Action("ipvs.set_server", f"set {before} of {service} back", server_arguments(service, before))
    words = f"set {after} of {service} to {after.forwarding}, weight {after.weight}"
    return Action("ipvs.set_server", words, server_arguments(service, after), (undo,))


def leaving(difference: Difference, seconds: int) -> Plan:
    """Lets servers finish what they have, then takes them and the services that go away."""
    plan: list[Action] = []
    servers = list(difference.leaving)
    if seconds and servers:
        plan += [
            setting(service, server, server._replace(weight=0))
            for service, server in servers
            if server.weight
        ]
        waited_for = [(service.key, server.key) for service, server in servers]
        words = f"wait up to {seconds} s for connections to {len(servers)} servers that leave"
        plan.append(Action("ipvs.drain", words, {"servers": waited_for, "seconds": seconds}))
    gone = {service.key for service in difference.going}
    plan += [removing(service, server) for service, server in servers if service.key not in gone]
    for service in difference.going:
        undo = Action("ipvs.make_service", f"make {service} again", {"service": service})
        plan.append(Action("ipvs.remove_service", f"remove {service}", {"service": service}, (undo,)))
    return tuple(plan)


def removing(service: VirtualService, server: RealServer) -> Action:
    """Removes a server from a service; on the way back it is as it was."""
    arguments = server_arguments(service, server)
    undo = Action("ipvs.add_server", f"add {server} to {service} again", arguments)
    return Action("ipvs.remove_server", f"remove {server} from {service}", arguments, (undo,))
