"""A table of IPVS in memory that answers as the kernel's does, for plans and handlers."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NoReturn, cast

from meshaccel import engine
from meshaccel.ipvs.document import Kept, read_kept
from meshaccel.ipvs.handlers import Handlers
from meshaccel.ipvs.observe import Observed
from meshaccel.ipvs.plan import make_plan
from meshaccel.paths import NodePaths

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from meshaccel.engine import BeforeAction, Handler
    from meshaccel.ipvs.desired import Desired
    from meshaccel.ipvs.messages import Kernel
    from meshaccel.ipvs.model import RealServer, ServerKey, ServiceKey, VirtualService
    from meshaccel.model import Plan

SCHEDULERS = frozenset({"rr", "wrr", "wlc", "sh", "mh"})


class SimulatedTable:
    """The kernel's table; stands for meshaccel.ipvs.messages.Kernel as well."""

    def __init__(self, services: Iterable[VirtualService] = ()) -> None:
        """Begin with some services."""
        self.services = {service.key: service for service in services}
        self.sent = 0
        self.touched: set[ServiceKey] = set()
        #: What was seen after each message, for what must hold all the time.
        self.history: list[dict[ServiceKey, VirtualService]] = []
        self.fail_at: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> tuple[VirtualService, ...]:
        """Return the services as table.read() does."""
        return tuple(self.services.values())

    def new_service(self, service: VirtualService) -> None:
        self._count(service.key)
        if service.key in self.services:
            refuse(errno.EEXIST)
        self._put(service.settings)

    def set_service(self, service: VirtualService) -> None:
        self._count(service.key)
        self._put(service._replace(servers=self._find(service.key).servers))

    def delete_service(self, key: ServiceKey) -> None:
        self._count(key)
        del self.services[self._find(key).key]
        self.history.append(dict(self.services))

    def new_server(self, key: ServiceKey, server: RealServer) -> None:
        self._count(key)
        servers = self._servers(key)
        if server.key in servers:
            refuse(errno.EEXIST)
        self._put_servers(key, {**servers, server.key: server})

    def set_server(self, key: ServiceKey, server: RealServer) -> None:
        self._count(key)
        servers = self._servers(key)
        if server.key not in servers:
            refuse(errno.ENOENT)
        self._put_servers(key, {**servers, server.key: server})

    def delete_server(self, key: ServiceKey, server: RealServer) -> None:
        self._count(key)
        servers = self._servers(key)
        if server.key not in servers:
            refuse(errno.ENOENT)
        self._put_servers(key, {name: kept for name, kept in servers.items() if name != server.key})

    def _count(self, key: ServiceKey) -> None:
        self.sent += 1
        self.touched.add(key)
        if self.sent == self.fail_at:
            refuse(errno.ENOMEM)

    def _find(self, key: ServiceKey) -> VirtualService:
        if key not in self.services:
            refuse(errno.ESRCH)
        return self.services[key]

    def _servers(self, key: ServiceKey) -> dict[tuple[str, int], RealServer]:
        return {server.key: server for server in self._find(key).servers}

    def _put_servers(self, key: ServiceKey, servers: dict[tuple[str, int], RealServer]) -> None:
        self._put(self.services[key]._replace(servers=tuple(sorted(servers.values()))))

    def _put(self, service: VirtualService) -> None:
        self.services[service.key] = service
        self.history.append(dict(self.services))


def refuse(number: int) -> NoReturn:
    """Raise what a refused message raises."""
    raise OSError(number, os.strerror(number))


class SimulatedNode:
    """A node with such a table and with what is kept of a wish."""

    def __init__(self, services: Iterable[VirtualService] = ()) -> None:
        """Begin with services that somebody else has made."""
        self.table = SimulatedTable(services)
        self.document: bytes | None = None
        self.drained: list[tuple[ServiceKey, ServerKey]] = []

    def observe(self) -> Observed:
        """Return the state, of table and document alone."""
        kept = Kept() if self.document is None else read_kept(self.document, "the document")
        return Observed(True, self.table.read(), self.document, kept, SCHEDULERS)

    def plan(self, desired: Desired) -> Plan:
        """Return what the wish needs."""
        return make_plan(desired, self.observe(), NodePaths())

    def converge(self, desired: Desired, before_action: BeforeAction = engine.ignore) -> Plan:
        """Make the node as wished; returns what was done."""
        return engine.converge(
            self.observe,
            lambda seen: make_plan(desired, seen, NodePaths()),
            self.handlers(),
            before_action=before_action,
        ).actions

    def handlers(self) -> dict[str, Handler]:
        """Return handlers whose messages go to the table here."""
        handlers = Handlers()
        handlers._opened = cast("Kernel", self.table)
        return {
            **handlers.table(),
            "file.write": lambda found: setattr(self, "document", found["text"].encode()),
            "file.remove": lambda _: setattr(self, "document", None),
            "ipvs.drain": lambda found: self.drained.extend(found["servers"]),
        }
