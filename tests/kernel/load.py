"""Checked load within a pod, by the project's own load generator, for as long as a test likes."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.kernel.observation import wait_until
from tests.support import mesh_load
from tests.support.background import repeating
from tests.support.mesh_load import Client
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.kernel.topologies import Cgroups, Topology
    from tests.support.mesh_load import ServerMode

ECHO_PORT = 7001
SINK_PORT = 7002
#: Long enough to live through several switches, short enough to end soon after the last.
REQUESTS = Client("pingpong", size=3_000, connections=8, duration=1.5, verify=True)
STREAMS = Client("stream", size=8_000, connections=3, duration=1.0, verify=True)
SHORT_CONNECTIONS = Client("connect", size=700, connections=4, duration=0.5, verify=True)
STOP_SECONDS = 10.0
ROUND_SECONDS = 30.0


@dataclass(frozen=True)
class Load:
    """Rounds of three kinds of load; each list grows by one number of bytes a round."""

    requests: Sequence[int]
    streams: Sequence[int]
    short_connections: Sequence[int]

    def rounds(self) -> int:
        """How often each kind has ended and begun anew at least."""
        return min(len(self.requests), len(self.streams), len(self.short_connections))

    def await_round(self) -> None:
        """Wait until connections of every kind have lived through this moment, and new ones came."""
        begun = self.rounds()
        wait_until(lambda: self.rounds() > begun, "a round of load", ROUND_SECONDS)

    def bytes(self) -> int:
        """What has arrived and was as it should be, both ways, in rounds that have ended."""
        return sum(self.requests) + sum(self.streams) + sum(self.short_connections)


@contextlib.contextmanager
def server(topology: Topology, cgroups: Cgroups, mode: ServerMode, port: int) -> Iterator[None]:
    """Run a server meanwhile; it must not have seen a wrong byte."""
    command = mesh_load.server_command(mode, port, verify=mode == "sink")
    with ManagedProcess(command, Placement(topology.server.namespace, cgroups.server)) as serving:
        serving.wait_for_port(port)
        yield
        serving.send_signal(signal.SIGTERM)
        assert json.loads(serving.wait(STOP_SECONDS))["corrupted"] == 0


def run_client(topology: Topology, cgroups: Cgroups, client: Client, port: int) -> int:
    """Run a client to its end and return the bytes it moved; a lost or wrong byte is its error."""
    place = Placement(topology.client.namespace, cgroups.client)
    output = run(client.command(topology.address4, port), place, timeout=client.time_limit)
    if client.mode == "stream":
        return mesh_load.parse_stream(output).bytes
    return 2 * client.size * mesh_load.parse_requests(output).requests


@contextlib.contextmanager
def running_load(topology: Topology, cgroups: Cgroups) -> Iterator[Load]:
    """Keep requests, streams and short connections going, every byte of them checked."""
    with (
        server(topology, cgroups, "echo", ECHO_PORT),
        server(topology, cgroups, "sink", SINK_PORT),
        repeating(lambda: run_client(topology, cgroups, REQUESTS, ECHO_PORT)) as requests,
        repeating(lambda: run_client(topology, cgroups, STREAMS, SINK_PORT)) as streams,
        repeating(lambda: run_client(topology, cgroups, SHORT_CONNECTIONS, ECHO_PORT)) as short_connections,
    ):
        yield Load(requests, streams, short_connections)
