"""The networks that a connection of a mesh crosses: one pod, a wire, a router that translates."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.namespaces import Attachment, NetworkNamespace, connect
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cgroups import TestCgroup

WIRE = "eth0"
CLIENT_SIDE = "client0"
SERVER_SIDE = "server0"


@dataclass(frozen=True)
class Cgroups:
    """The cgroups of the programs at the two ends."""

    client: TestCgroup
    server: TestCgroup

    @property
    def paths(self) -> list[str]:
        """Both, as `sockops_cgroups` takes them."""
        return [self.client.relative_path, self.server.relative_path]


@dataclass(frozen=True)
class Topology:
    """Where the two ends of a connection are, and at which addresses the client finds the server."""

    client: SocketMaker
    server: SocketMaker
    address4: str
    address6: str

    def address(self, version: int) -> str:
        """The server's address of IP version 4 or 6."""
        return self.address4 if version == 4 else self.address6


@dataclass(frozen=True)
class RoutedTopology(Topology):
    """A topology with a router between the two."""

    router: NetworkNamespace


@contextlib.contextmanager
def one_pod(cgroups: Cgroups) -> Iterator[Topology]:
    """Both ends in one namespace, over its loopback, as a sidecar and its application."""
    with (
        NetworkNamespace("pod") as pod,
        SocketMaker(pod, cgroups.client) as client,
        SocketMaker(pod, cgroups.server) as server,
    ):
        yield Topology(client, server, "127.0.0.1", "::1")


@contextlib.contextmanager
def namespaces(*labels: str) -> Iterator[list[NetworkNamespace]]:
    """Make namespaces whose interfaces have their IPv6 link-local addresses at once.

    Otherwise a neighbour cannot be asked for during the first second, and a SYN is lost.
    """
    with contextlib.ExitStack() as resources:
        made = [resources.enter_context(NetworkNamespace(label)) for label in labels]
        for namespace in made:
            namespace.set_sysctl("net.ipv6.conf.default.accept_dad", "0")
        yield made


@contextlib.contextmanager
def two_pods(cgroups: Cgroups) -> Iterator[Topology]:
    """Two namespaces on a veth pair, always with the same addresses."""
    with namespaces("client", "server") as (first, second):
        connect(
            Attachment(first, WIRE, ("10.77.0.1/24", "fd77::1/64")),
            Attachment(second, WIRE, ("10.77.0.2/24", "fd77::2/64")),
        )
        with SocketMaker(first, cgroups.client) as client, SocketMaker(second, cgroups.server) as server:
            yield Topology(client, server, "10.77.0.2", "fd77::2")


@contextlib.contextmanager
def routed(cgroups: Cgroups) -> Iterator[RoutedTopology]:
    """Two namespaces that see each other through a router, in which a test may translate."""
    with namespaces("client", "router", "server") as (first, router, second):
        connect_router(router, first, CLIENT_SIDE, 1)
        connect_router(router, second, SERVER_SIDE, 2)
        router.set_sysctl("net.ipv4.ip_forward", "1")
        router.set_sysctl("net.ipv6.conf.all.forwarding", "1")
        with SocketMaker(first, cgroups.client) as client, SocketMaker(second, cgroups.server) as server:
            yield RoutedTopology(client, server, "10.78.2.2", "fd78:2::2", router)


def connect_router(router: NetworkNamespace, pod: NetworkNamespace, interface: str, number: int) -> None:
    """Give a pod a subnet of its own behind the router, and its default routes."""
    connect(
        Attachment(router, interface, (f"10.78.{number}.1/24", f"fd78:{number}::1/64")),
        Attachment(pod, WIRE, (f"10.78.{number}.2/24", f"fd78:{number}::2/64")),
    )
    pod.run(["ip", "route", "add", "default", "via", f"10.78.{number}.1"])
    pod.run(["ip", "-6", "route", "add", "default", "via", f"fd78:{number}::1"])
