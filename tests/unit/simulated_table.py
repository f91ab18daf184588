"""A table of IPVS in memory that answers as the kernel's does, for plans and handlers."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from meshaccel.ipvs.model import RealServer, ServiceKey, VirtualService

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


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
        self._find(key)
        del self.services[key]
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


def refuse(number: int) -> None:
    """Raise what a refused message raises."""
    raise OSError(number, os.strerror(number))
