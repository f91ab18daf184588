"""A director in a network namespace of its own, with a table of services that IPVS need not have."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from meshaccel.accelerators.ipvs_bpf.service import IpvsBpf, IpvsResult
from meshaccel.accelerators.ipvs_bpf.surroundings import Readers
from meshaccel.ipvs.model import RealServer, VirtualService
from meshaccel.ipvs.timeouts import Timeouts
from meshaccel.system import systemd
from meshaccel.system.network_namespaces import entered
from tests.support.accelerator import ROOT, node_paths
from tests.support.bpffs import own_bpffs
from tests.support.directories import temporary_directory
from tests.support.namespaces import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT = ROOT / "build" / "bpf" / "ipvs_bpf.bpf.o"
WEB = VirtualService("tcp", "10.96.0.1", 80, None, "ipv4", "rr", servers=(RealServer("10.244.0.5", 8080),))
WEB6 = VirtualService("tcp", "fd00:96::1", 80, None, "ipv6", "rr", servers=(RealServer("2001:db8::5", 80),))
#: The devices that programs hang at.
DEVICES = ("c0", "c1", "br0", "p0", "p1", "tun")


@dataclass
class Director:
    """The accelerator on a namespace; `services` is what IPVS would have."""

    node: IpvsBpf
    namespace: NetworkNamespace
    services: list[VirtualService] = field(default_factory=lambda: [WEB, WEB6])

    def converge(self, **wish: object) -> IpvsResult:
        """Converge to a wish of every service in BPF, but for these role variables without their prefix."""
        settings = {"mode": "bpf", "follow": "all", "observe_seconds": 0, "drain_seconds": 0, **wish}
        with self.inside():
            return self.node.converge(self.node.parse(settings))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Work in the namespace."""
        with entered(str(self.namespace.path)):
            yield

    def call(self, *command: str) -> str:
        """Run a program in the namespace; return what it printed."""
        return self.namespace.run(command)


@contextlib.contextmanager
def director(object_path: Path = OBJECT) -> Iterator[Director]:
    """Give a director with an uplink, a bridge with a port and a tunnel; take all off at the end."""
    with (
        temporary_directory("director") as name,
        own_bpffs() as bpffs,
        NetworkNamespace("director") as namespace,
        mock.patch.object(systemd, "running", return_value=False),
    ):
        made = Director(
            IpvsBpf(node_paths(Path(name), bpffs), str(object_path), root=str(Path(name) / "root")), namespace
        )
        readers = Readers(
            lambda: True, lambda: None, lambda: tuple(made.services), lambda: Timeouts(900, 120, 300)
        )
        made.node = replace(made.node, readers=readers)
        make_devices(namespace)
        try:
            yield made
        finally:
            made.converge(state="absent")


def make_devices(namespace: NetworkNamespace) -> None:
    """Make the devices and their addresses."""
    commands = """
        link add c0 type veth peer name c1
        link set c0 up
        link set c1 up
        addr add 192.0.2.1/24 dev c0
        addr add 2001:db8::1/64 dev c0 nodad
        link add br0 type bridge
        link add p0 type veth peer name p1
        link set p0 master br0 up
        link set br0 up
        addr add 10.244.0.1/24 dev br0
        tuntap add tun mode tun
        addr add 10.9.0.1/24 dev tun
        link set tun up
    """
    namespace.configure([line.split() for line in commands.splitlines() if line.strip()])
