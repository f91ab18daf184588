"""The two sides of a comparison: networks, cgroups and servers of their own, made alike."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.support.cgroups import TestCgroup
from tests.support.mesh_load import Client, parse_mixed, parse_requests, parse_stream, server_command
from tests.support.namespaces import NetworkNamespace, NodeNetwork, connect_nodes
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from tests.bench.results import Figures
    from tests.support.mesh_load import ClientMode, ServerMode

ECHO_PORT = 5000
SINK_PORT = 5001
MIXED_PORT = 5002
SERVERS: tuple[tuple[ServerMode, int], ...] = (
    ("echo", ECHO_PORT),
    ("sink", SINK_PORT),
    ("mixed-server", MIXED_PORT),
)
LOOPBACK = "127.0.0.1"


class Route(enum.Enum):
    """What lies between client and server."""

    LOOPBACK = "the loopback of one pod"
    BRIDGE = "two pods on the bridge of one node"
    NODES = "two nodes with a wire between them"


class OptIn(enum.Enum):
    """Which ends an accelerator may act on, when it is on for this arm."""

    BOTH = "both ends"
    CLIENT = "the client alone"


class TrafficArm:
    """A client and its servers, running while the context is entered.

    The servers stay; every run is a new client process with new connections.
    """

    def __init__(self, label: str, route: Route, opt_in: OptIn = OptIn.BOTH) -> None:
        """Prepare an arm; nothing runs yet."""
        self._label = label
        self._route = route
        self._opt_in = opt_in
        self._cgroup = TestCgroup(f"bench-{label}")
        self._client_cgroup = TestCgroup("client", self._cgroup)
        self._server_cgroup = TestCgroup("server", self._cgroup)
        self._resources = contextlib.ExitStack()
        self._client: Placement | None = None
        self._server_address = LOOPBACK

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            for cgroup in (self._cgroup, self._client_cgroup, self._server_cgroup):
                resources.enter_context(cgroup)
            client_namespace, server_namespace = self._make_network(resources)
            self._client = Placement(client_namespace, self._client_cgroup)
            self._start_servers(resources, Placement(server_namespace, self._server_cgroup))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    @property
    def cgroups(self) -> tuple[str, ...]:
        """The cgroups to opt in, as `sockops_cgroups` takes them."""
        client = self._client_cgroup.relative_path
        if self._opt_in is OptIn.CLIENT:
            return (client,)
        return (client, self._server_cgroup.relative_path)

    def run(self, client: Client) -> Figures:
        """Run a client to its end and return what it and this arm's processor time amount to."""
        if self._client is None:
            raise RuntimeError(f"arm {self._label}: not running, use it as a context manager")
        kind = KINDS[client.mode]
        command = client.command(self._server_address, kind.port)
        before = self._cgroup.cpu_seconds()
        output = run(command, self._client, timeout=client.time_limit)
        cpu_seconds = self._cgroup.cpu_seconds() - before
        return kind.figures(output, cpu_seconds)

    def _make_network(self, resources: contextlib.ExitStack) -> tuple[NetworkNamespace, NetworkNamespace]:
        if self._route is Route.LOOPBACK:
            namespace = resources.enter_context(NetworkNamespace(f"bench-{self._label}"))
            return namespace, namespace
        node = resources.enter_context(NodeNetwork(self._label, "10.78.1.0/24", "fd78:1::/64"))
        other = node
        if self._route is Route.NODES:
            other = resources.enter_context(
                NodeNetwork(f"{self._label}-other", "10.78.2.0/24", "fd78:2::/64")
            )
            connect_nodes(node, other)
        client, server = node.add_pod("client"), other.add_pod("server")
        # Thousands of short connections a second would wait for their ports otherwise.
        client.namespace.set_sysctl("net.ipv4.tcp_tw_reuse", "1")
        self._server_address = server.address4
        return client.namespace, server.namespace

    def _start_servers(self, resources: contextlib.ExitStack, placement: Placement) -> None:
        for mode, port in SERVERS:
            server = resources.enter_context(ManagedProcess(server_command(mode, port), placement))
            server.wait_for_port(port)


def request_figures(output: str, cpu_seconds: float) -> Figures:
    """Return the figures of a pingpong or connect client."""
    result = parse_requests(output)
    return {
        "qps": result.requests_per_second,
        "latency_mean": result.latencies.mean,
        "latency_p50": result.latencies.percentile(50),
        "latency_p99": result.latencies.percentile(99),
        "cpu_per_request": cpu_seconds / result.requests,
    }


def stream_figures(output: str, cpu_seconds: float) -> Figures:
    """Return the figures of a stream client."""
    result = parse_stream(output)
    return {
        "bytes_per_second": result.bytes_per_second,
        "cpu_per_byte": cpu_seconds / result.bytes,
    }


def mixed_figures(output: str, cpu_seconds: float) -> Figures:
    """Return the figures of a mixed client; the latencies are those of its requests."""
    result = parse_mixed(output)
    latencies = result.requests.latencies
    return {
        "latency_mean": latencies.mean,
        "latency_p50": latencies.percentile(50),
        "latency_p99": latencies.percentile(99),
        "bytes_per_second": result.bytes_per_second,
        "cpu_per_byte": cpu_seconds / result.bytes,
    }


@dataclass(frozen=True)
class ClientKind:
    """The server that clients of one mode go to, and what is made of their results."""

    port: int
    figures: Callable[[str, float], Figures]


KINDS: Mapping[ClientMode, ClientKind] = {
    "pingpong": ClientKind(ECHO_PORT, request_figures),
    "connect": ClientKind(ECHO_PORT, request_figures),
    "stream": ClientKind(SINK_PORT, stream_figures),
    "mixed": ClientKind(MIXED_PORT, mixed_figures),
}
