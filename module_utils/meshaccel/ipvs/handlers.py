# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out the actions of a plan on the kernel's table.

Every handler accepts that its work is already done or half done: an undo may follow
an action that failed in the middle.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from .. import file_actions
from ..engine import Handler
from ..errors import Unsupported
from ..model import Json
from . import kernel_module, table
from .model import VirtualService
from .plan import no_scheduler

if TYPE_CHECKING:
    from .messages import Kernel

#: Before each look. A handshake that was under way is through by the first, and so counted.
PAUSE_SECONDS = 0.5


class Handlers:
    """The handlers of one run. ``notes`` collects what the operator should know."""

    def __init__(self) -> None:
        """Opens nothing: a run that only compares has no use for it."""
        self.notes: list[str] = []
        self._stack = contextlib.ExitStack()
        self._opened: Kernel | None = None

    def __enter__(self) -> Handlers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def table(self) -> Mapping[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            **file_actions.handlers(),
            "ipvs.load": self.load,
            "ipvs.make_service": self.make_service,
            "ipvs.set_service": self.set_service,
            "ipvs.remove_service": self.remove_service,
            "ipvs.add_server": self.add_server,
            "ipvs.set_server": self.set_server,
            "ipvs.remove_server": self.remove_server,
            "ipvs.drain": self.drain,
        }

    @property
    def messages(self) -> int:
        """How many messages were sent to change the table."""
        return self._opened.sent if self._opened is not None else 0

    def load(self, _: Mapping[str, Json]) -> None:
        """Has the kernel load IPVS."""
        kernel_module.ensure()

    def make_service(self, arguments: Mapping[str, Json]) -> None:
        """Makes a service with its servers."""
        service: VirtualService = arguments["service"]
        with naming_schedulers(service):
            try:
                self._kernel.new_service(service)
            except FileExistsError:
                self._kernel.set_service(service)
        for server in service.servers:
            self.add_server({"key": service.key, "server": server})

    def set_service(self, arguments: Mapping[str, Json]) -> None:
        """Edits a service in place."""
        service: VirtualService = arguments["service"]
        with naming_schedulers(service):
            self._kernel.set_service(service)

    def remove_service(self, arguments: Mapping[str, Json]) -> None:
        """Removes a service and its servers."""
        with contextlib.suppress(ProcessLookupError):
            self._kernel.delete_service(arguments["service"].key)

    def add_server(self, arguments: Mapping[str, Json]) -> None:
        """Adds a server to a service."""
        try:
            self._kernel.new_server(arguments["key"], arguments["server"])
        except FileExistsError:
            self.set_server(arguments)

    def set_server(self, arguments: Mapping[str, Json]) -> None:
        """Edits a server in place."""
        self._kernel.set_server(arguments["key"], arguments["server"])

    def remove_server(self, arguments: Mapping[str, Json]) -> None:
        """Removes a server from a service."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self._kernel.delete_server(arguments["key"], arguments["server"])

    def drain(self, arguments: Mapping[str, Json]) -> None:
        """Waits until no leaving server has a connection any more, or for as long as it may."""
        leaving = [tuple(entry) for entry in arguments["servers"]]
        services = dict.fromkeys(key for key, _ in leaving)
        deadline = time.monotonic() + arguments["seconds"]
        while True:
            time.sleep(PAUSE_SECONDS)
            counts = table.connections(services)
            open_connections = sum(counts.get(entry, 0) for entry in leaving)
            if not open_connections:
                return
            if time.monotonic() >= deadline:
                self.notes.append(
                    f"servers left with {open_connections} connections after {arguments['seconds']} s; "
                    "with a longer ipvs_service_drain_seconds they would have had time to end"
                )
                return

    @property
    def _kernel(self) -> Kernel:
        if self._opened is None:
            # Takes long to import, and a run that changes nothing has no use for it.
            try:
                from .messages import Kernel
            except ImportError as error:
                raise Unsupported(
                    wanted="pyroute2, to change the services of IPVS",
                    found=str(error),
                    remedy="install python3-pyroute2 for the node's Python; the role ipvs_service does",
                ) from error
            self._opened = self._stack.enter_context(Kernel())
        return self._opened


@contextlib.contextmanager
def naming_schedulers(service: VirtualService) -> Iterator[None]:
    """Says what is missing when the kernel says that something is: a scheduler or a persistence engine."""
    try:
        yield
    except FileNotFoundError as error:
        there = kernel_module.schedulers() or frozenset()
        if service.persistence_engine is None or service.scheduler not in there:
            raise no_scheduler(service.scheduler, there) from error
        raise Unsupported(
            wanted=f"the persistence engine {service.persistence_engine} in this kernel",
            found="none of that name",
            remedy="install the kernel's module ip_vs_pe_NAME",
        ) from error
