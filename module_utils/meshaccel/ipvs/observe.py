# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node has, for a plan: the kernel's table, and what is kept of an earlier wish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..paths import NodePaths
from ..system import files
from . import NAME, kernel_module, table
from .desired import Desired
from .document import Kept, read_kept
from .model import ServiceKey, VirtualService


@dataclass(frozen=True)
class Observed:
    """The table with whose its services are."""

    loaded: bool = True
    services: tuple[VirtualService, ...] = ()
    #: The kept document as it is; None when there is none.
    document: bytes | None = None
    kept: Kept = field(default_factory=Kept)
    #: What the kernel can schedule by; None when that cannot be told.
    schedulers: frozenset[str] | None = None


def observe(desired: Desired, paths: NodePaths) -> Observed:
    """Reads the node's state. Changes nothing.

    Raises Unsupported when services are wished that this kernel cannot have; InvalidInput
    when it cannot be told any more which services are ours; Busy as table.read().
    """
    path = paths.desired(NAME)
    content = files.read(path)
    kept = Kept() if content is None else read_kept(content, path)
    loaded = kernel_module.loaded()
    if not loaded and not desired.services:
        return Observed(loaded, (), content, kept)
    detailed = kept.detailed.union(with_thresholds(desired.services))
    services = table.read(detailed)
    return Observed(loaded, services, content, kept, usable_schedulers(desired, services))


def with_thresholds(services: Iterable[VirtualService]) -> Iterable[ServiceKey]:
    """Yields the services that have a server with a threshold, which takes a look of its own."""
    for service in services:
        if any(server.upper_threshold for server in service.servers):
            yield service.key


def usable_schedulers(desired: Desired, services: tuple[VirtualService, ...]) -> frozenset[str] | None:
    """Returns the schedulers in use, and if that is not all that is wished, those that can be loaded."""
    used = frozenset(service.scheduler for service in services)
    if used.issuperset(service.scheduler for service in desired.services):
        return used
    loadable = kernel_module.schedulers()
    return None if loadable is None else used | loadable
