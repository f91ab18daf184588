"""Programs of others around the lab: a name server, iperf3, keepalived."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.directories import temporary_directory
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.ipvs.lab import Host
    from tests.support.namespaces import NetworkNamespace

NAME_PORT = 53
STREAM_PORT = 5201
NAME = "service.test"
ANSWERS = {"A": "192.0.2.7", "AAAA": "2001:db8::7"}
KEEPALIVED = """\
global_defs {{ script_user root }}
virtual_server {address} {port} {{
  delay_loop 1
  lb_algo rr
  lb_kind NAT
  protocol TCP
{servers}
}}
"""
KEEPALIVED_SERVER = """\
  real_server {address} {port} {{
    TCP_CHECK {{
      connect_timeout 1
      retry 0
    }}
  }}"""


@contextlib.contextmanager
def name_server(host: Host) -> Iterator[None]:
    """Run dnsmasq on a host; it knows NAME in both families."""
    answers = [f"--address=/{NAME}/{answer}" for answer in ANSWERS.values()]
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    # One process for each question by TCP at most, and no file of the machine's is read.
    command += ["--no-resolv", "--no-hosts", f"--port={NAME_PORT}", "--log-facility=-", *answers]
    with ManagedProcess(command, Placement(host.namespace)) as server:
        server.wait_for_port(NAME_PORT)
        yield


def dig(host: Host, address: str, port: int, kind: str, *options: str) -> str:
    """Ask a name server for NAME, once; returns the answer. Raises ProcessError when none comes."""
    command = ["dig", f"@{address}", "-p", str(port), "+short", "+tries=1", "+time=3", *options, NAME, kind]
    return host.namespace.run(command).strip()


@contextlib.contextmanager
def stream_server(host: Host) -> Iterator[None]:
    """Run iperf3's server on a host."""
    with ManagedProcess(["iperf3", "--server", "--forceflush"], Placement(host.namespace)) as server:
        server.wait_for_port(STREAM_PORT)
        yield


def stream(host: Host, address: str, port: int, *options: str) -> dict[str, float]:
    """Run iperf3's client for a second; returns its sums as the receiver has them."""
    command = ["iperf3", "--client", address, "--port", str(port), "--time", "1", "--json", *options]
    found: dict[str, dict[str, float]] = json.loads(host.namespace.run(command))["end"]
    # Of datagrams there is one sum, of the receiver's; in `sum_received` it leaves out those lost.
    return found["sum"] if "--udp" in options else found["sum_received"]


@contextlib.contextmanager
def keepalived(
    director: NetworkNamespace, address: str, port: int, servers: Sequence[str]
) -> Iterator[ManagedProcess]:
    """Run keepalived with a virtual service at `port`, the servers' too; it looks after them each second."""
    with temporary_directory("keepalived") as directory:
        configuration = Path(directory) / "keepalived.conf"
        entries = [KEEPALIVED_SERVER.format(address=server, port=port) for server in servers]
        text = KEEPALIVED.format(address=address, port=port, servers="\n".join(entries))
        configuration.write_text(text, encoding="utf-8")
        files = [f"--{name}pid={directory}/{name or 'main'}" for name in ("", "checkers_", "vrrp_")]
        command = ["keepalived", "--dont-fork", "--check", "--log-console", "--use-file", str(configuration)]
        with ManagedProcess([*command, *files], Placement(director)) as process:
            expected = sorted(f"{server}:{port}" for server in servers)
            process.wait_until(
                lambda: real_servers(director, f"{address}:{port}") == expected, "its service", 20.0
            )
            yield process


def real_servers(director: NetworkNamespace, service: str) -> list[str]:
    """Return the real servers of a virtual service of TCP, in order."""
    words = (line.split() for line in director.run(["ipvsadm", "-Sn"]).splitlines())
    return sorted(line[4] for line in words if line[:3] == ["-a", "-t", service])
