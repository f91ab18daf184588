"""A sidecar mesh on this machine: two pods on a node, an Envoy in each, programs behind, load in front.

    client pod                       node             server pod
    load --REDIRECT--> Envoy --veth-- bridge --veth--REDIRECT--> Envoy --> nginx, echo server
    load ------------(excluded ports)-- bridge ------------------------> nginx, Redis

Each of the four, load and servers and both sidecars, has a cgroup of its own, as a container has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.demo.load import LoadResult, parse_mesh_load, parse_redis_benchmark, parse_wrk, wrk_command
from tests.demo.sidecar import BODY_BYTES, PORTS, render, render_file, sidecar_command
from tests.support import mesh_load
from tests.support.cgroups import TestCgroup
from tests.support.namespaces import NodeNetwork, Pod
from tests.support.processes import ManagedProcess, Placement, run

CONNECTIONS = 64
READY_SECONDS = 20.0
POOL_SECONDS = 10.0
GRACE_SECONDS = 20.0
"""How much longer than asked a load generator may take."""

REDIS_PROBE_REQUESTS = 5000


@dataclass(frozen=True)
class Sample:
    """One run of a load and the processor time that the whole mesh used in it, the load's own included."""

    load: LoadResult
    cpu_seconds: float

    @property
    def cpu_per_request(self) -> float:
        """Seconds of processor time a request."""
        return self.cpu_seconds / self.load.requests


class Mesh:
    """A mesh that runs while its context is entered.

    Several may run at once; each has networks of its own, so they all use the same addresses.
    """

    def __init__(self, name: str, directory: Path, cgroup_parent: TestCgroup | None = None) -> None:
        """Prepare a mesh; configuration and logs go to `directory`/`name`, nothing runs yet."""
        self.name = name
        self.cgroup = TestCgroup(name, cgroup_parent)
        self._directory = directory / name
        self._node = NodeNetwork(name, "10.77.0.0/24", "fd77::/64")
        self.application_cgroup = TestCgroup("client-application", self.cgroup)
        self._client_sidecar_cgroup = TestCgroup("client-sidecar", self.cgroup)
        self._server_sidecar_cgroup = TestCgroup("server-sidecar", self.cgroup)
        self._server_cgroup = TestCgroup("server-application", self.cgroup)
        self._resources = contextlib.ExitStack()
        self._pods: tuple[Pod, Pod] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        mesh_load.build([str(mesh_load.PROGRAM)])
        with contextlib.ExitStack() as resources:
            for cgroup in (self.cgroup, *self._container_cgroups()):
                resources.enter_context(cgroup)
            resources.enter_context(self._node)
            self._pods = (self._node.add_pod("client"), self._node.add_pod("server"))
            self._redirect()
            self._start_programs(resources)
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
        """The cgroups to accelerate, one a container, as `sockops_cgroups` takes them."""
        return tuple(cgroup.relative_path for cgroup in self._container_cgroups())

    @property
    def client(self) -> Pod:
        """The pod of the load and the outbound sidecar."""
        return self._entered()[0]

    @property
    def server(self) -> Pod:
        """The pod of the inbound sidecar and the servers."""
        return self._entered()[1]

    def run_http(self, seconds: int, connections: int = CONNECTIONS) -> Sample:
        """Load nginx with 1 KB answers through both sidecars."""
        return self._run_wrk(PORTS.http_port, seconds, connections)

    def run_direct_http(self, seconds: int, connections: int = CONNECTIONS) -> Sample:
        """Load nginx with 1 KB answers from pod to pod, past the sidecars."""
        return self._run_wrk(PORTS.direct_http_port, seconds, connections)

    def run_tcp(self, seconds: int, connections: int = CONNECTIONS) -> Sample:
        """Send 1 KB back and forth with the echo server through both sidecars as TCP proxies."""
        client = mesh_load.Client("pingpong", BODY_BYTES, connections, duration=seconds)
        command = client.command(self.server.address4, PORTS.tcp_port)
        return self._measured(lambda: parse_mesh_load(self._run_client(command, seconds)))

    def run_redis(self, command: str, seconds: int, connections: int = CONNECTIONS) -> Sample:
        """Load Redis with `command` ("get" or "set") of 1 KB from pod to pod, past the sidecars.

        redis-benchmark takes a number of requests: a few SETs before tell how many to ask for, and leave
        the value that a GET is to find.
        """

        def load(command: str, requests: int) -> LoadResult:
            arguments = [
                "redis-benchmark", "-h", self.server.address4, "-p", str(PORTS.redis_port), "-t", command,
                "-n", str(requests), "-c", str(connections), "-d", str(BODY_BYTES),
            ]  # fmt: skip
            return parse_redis_benchmark(self._run_client(arguments, seconds))

        probe = load("set", REDIS_PROBE_REQUESTS)
        return self._measured(lambda: load(command, round(probe.qps * seconds)))

    def wait_for_empty_pools(self) -> None:
        """Wait until neither pod has a connection: the sidecars close their pooled ones when idle.

        What is loaded next then goes over connections of its own. Raises TimeoutError.
        """
        deadline = time.monotonic() + POOL_SECONDS
        list_connections = ["ss", "--no-header", "--tcp", "--numeric", "state", "established"]
        while any(pod.namespace.run(list_connections) for pod in self._entered()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"mesh {self.name}: connections still open after {POOL_SECONDS} s")
            time.sleep(0.05)

    def _container_cgroups(self) -> tuple[TestCgroup, ...]:
        return (
            self.application_cgroup,
            self._client_sidecar_cgroup,
            self._server_sidecar_cgroup,
            self._server_cgroup,
        )

    def _entered(self) -> tuple[Pod, Pod]:
        if self._pods is None:
            raise RuntimeError(f"mesh {self.name}: not running, use it as a context manager")
        return self._pods

    def _redirect(self) -> None:
        rules = render("redirect.nft.j2", self._directory)
        for pod in self._entered():
            pod.namespace.run(["nft", "-f", "-"], standard_input=rules)

    def _start_programs(self, resources: contextlib.ExitStack) -> None:
        nginx = render_file("nginx.conf.j2", self._directory)
        outbound = render_file("envoy_outbound.yaml.j2", self._directory)
        inbound = render_file("envoy_inbound.yaml.j2", self._directory)
        servers = Placement(self.server.namespace, self._server_cgroup)
        inbound_place = Placement(self.server.namespace, self._server_sidecar_cgroup)
        outbound_place = Placement(self.client.namespace, self._client_sidecar_cgroup)
        programs = (
            (["nginx", "-c", str(nginx), "-p", str(self._directory)], servers, PORTS.http_port),
            (self._redis_command(), servers, PORTS.redis_port),
            (mesh_load.server_command("echo", PORTS.tcp_port), servers, PORTS.tcp_port),
            (sidecar_command(inbound), inbound_place, PORTS.inbound_port),
            (sidecar_command(outbound), outbound_place, PORTS.outbound_port),
        )
        started = [
            (resources.enter_context(ManagedProcess(command, place, log_directory=self._directory)), port)
            for command, place, port in programs
        ]
        for process, port in started:
            process.wait_for_port(port, READY_SECONDS)

    def _redis_command(self) -> list[str]:
        return [
            "redis-server", "--port", str(PORTS.redis_port), "--bind", "0.0.0.0",
            "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", str(self._directory),
        ]  # fmt: skip

    def _run_wrk(self, port: int, seconds: int, connections: int) -> Sample:
        command = wrk_command(f"http://{self.server.address4}:{port}/", seconds, connections)
        return self._measured(lambda: parse_wrk(self._run_client(command, seconds)))

    def _measured(self, load: Callable[[], LoadResult]) -> Sample:
        before = self.cgroup.cpu_seconds()
        result = load()
        return Sample(result, self.cgroup.cpu_seconds() - before)

    def _run_client(self, command: list[str], seconds: int) -> str:
        place = Placement(self.client.namespace, self.application_cgroup)
        return run(command, place, timeout=seconds + GRACE_SECONDS)
