"""Servers on the lab's backends, and what its clients do."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel.system.network_namespaces import entered
from tests.demo.load import LoadResult, parse_wrk, wrk_command
from tests.ipvs.kube_proxy import endpoint_text
from tests.support.directories import temporary_directory
from tests.support.mesh_load import Client, RequestResult, StreamResult, parse_requests, parse_stream
from tests.support.mesh_load import server_command as mesh_load_server
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.ipvs.lab import Host

ECHO_PORT, SINK_PORT, HTTP_PORT = 5000, 5001, 8080
ANSWER_SECONDS = 20.0
GRACE_SECONDS = 30.0
"""What a client may take to start and to end beside its own time, in a guest."""
NGINX = """\
daemon off;
user root;
worker_processes 1;
pid "{directory}/nginx.pid";
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path "{directory}/body";
  proxy_temp_path "{directory}/proxy";
  fastcgi_temp_path "{directory}/fastcgi";
  uwsgi_temp_path "{directory}/uwsgi";
  scgi_temp_path "{directory}/scgi";
  server {{
    listen {port};
    listen [::]:{port};
    default_type text/plain;
    location / {{ return 200 "{answer} $remote_addr"; }}
  }}
}}
"""


@contextlib.contextmanager
def echo_and_sink(hosts: Iterable[Host]) -> Iterator[None]:
    """Run the project's own servers on hosts, at every address of both families."""
    with contextlib.ExitStack() as resources:
        for host in hosts:
            for mode, port in (("echo", ECHO_PORT), ("sink", SINK_PORT)):
                command = mesh_load_server("sink" if mode == "sink" else "echo", port)
                server = resources.enter_context(ManagedProcess(command, Placement(host.namespace)))
                server.wait_for_port(port)
        yield


@contextlib.contextmanager
def nginx(host: Host, answer: str, port: int = HTTP_PORT) -> Iterator[None]:
    """Run nginx on a host; it answers with these words and the address that it sees as the client's."""
    with temporary_directory("nginx") as directory:
        configuration = Path(directory) / "nginx.conf"
        text = NGINX.format(directory=directory, port=port, answer=answer)
        configuration.write_text(text, encoding="utf-8")
        command = ["nginx", "-c", str(configuration), "-p", directory]
        with ManagedProcess(command, Placement(host.namespace)) as server:
            server.wait_for_port(port)
            yield


def request(host: Host, address: str, port: int) -> str:
    """Make one HTTP request on a connection of its own and return the answer."""
    url = f"http://{endpoint_text(address, port)}/"
    return host.namespace.run(["curl", "-sS", "-g", "--max-time", "10", url])


def wrk(host: Host, address: str, port: int, seconds: int, connections: int = 8) -> LoadResult:
    """Load an HTTP server from a host."""
    command = wrk_command(f"http://{endpoint_text(address, port)}/", seconds, connections)
    return parse_wrk(host.namespace.run(command, timeout=seconds + GRACE_SECONDS))


@contextlib.contextmanager
def connected(host: Host, address: str, port: int) -> Iterator[socket.socket]:
    """Have a TCP connection of a host; reading raises TimeoutError after ANSWER_SECONDS."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with entered(str(host.namespace.path)):
        connection = socket.socket(family, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect((address, port))
        yield connection


def requests(host: Host, client: Client, address: str, port: int, *, checked: bool = True) -> RequestResult:
    """Run a pingpong or connect client against an echo server; by default every byte is checked."""
    return parse_requests(_run_client(host, replace(client, verify=checked), address, port))


def stream(host: Host, client: Client, address: str, port: int, *, checked: bool = True) -> StreamResult:
    """Run a stream client against a sink; by default every byte is checked, if the sink does so too."""
    return parse_stream(_run_client(host, replace(client, verify=checked), address, port))


def _run_client(host: Host, client: Client, address: str, port: int) -> str:
    command = client.command(address, port)
    return run(command, Placement(host.namespace), timeout=client.time_limit + GRACE_SECONDS)
