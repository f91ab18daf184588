"""Network namespaces of a test, and the wires between them."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.cgroups import NAME_PREFIX
from tests.support.processes import Placement, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

NAMESPACE_DIRECTORY = Path("/run/netns")
BRIDGE = "br0"
POD_INTERFACE = "eth0"
_numbers = itertools.count()


class NetworkNamespace:
    """A network namespace with loopback up, made on entering the context, removed on leaving it."""

    def __init__(self, label: str) -> None:
        """Choose the name; `label` tells the namespaces of one test apart."""
        self.name = f"{NAME_PREFIX}{os.getpid()}-{next(_numbers)}-{label}"

    def __enter__(self) -> Self:
        run(["ip", "netns", "add", self.name])
        self.run(["ip", "link", "set", "lo", "up"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        remove_namespace(self.name)

    @property
    def path(self) -> Path:
        """The file that names the namespace for nsenter and setns."""
        return NAMESPACE_DIRECTORY / self.name

    def run(self, command: Sequence[str], *, standard_input: str | None = None, timeout: float = 60.0) -> str:
        """Run a program in here to its end and return its output; see processes.run."""
        return run(command, Placement(namespace=self), standard_input=standard_input, timeout=timeout)

    def configure(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands of `ip`, each without that word, in one process; the first that fails ends it."""
        self.run(["ip", "-batch", "-"], standard_input="".join(f"{' '.join(words)}\n" for words in commands))

    def set_sysctl(self, name: str, value: str) -> None:
        """Set a `net.` sysctl of this namespace."""
        self.run(["sysctl", "-q", "-w", f"{name}={value}"])

    def forward(self) -> None:
        """Make this namespace a router of both address families."""
        self.set_sysctl("net.ipv4.ip_forward", "1")
        self.set_sysctl("net.ipv6.conf.all.forwarding", "1")

    def set_receive_packet_steering(self, interface: str, processors: str) -> None:
        """Spread received packets over the processors in the hexadecimal mask `processors`.

        /sys shows the devices of the namespace it was mounted in, hence `ip netns exec` just here.
        """
        queue = f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"
        run(["ip", "netns", "exec", self.name, "tee", queue], standard_input=processors)


def remove_namespace(name: str) -> None:
    """Kill what runs in a network namespace and remove it."""
    for word in run(["ip", "netns", "pids", name]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(word), signal.SIGKILL)
    run(["ip", "netns", "del", name])


@dataclass(frozen=True)
class Attachment:
    """One end of a wire: an interface to make in a namespace, its addresses as `address/prefix`.

    Default routes lead to the gateways, one of an address family.
    """

    namespace: NetworkNamespace
    interface: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()

    def bring_up(self) -> None:
        """Give the interface its addresses and set it up, then make the routes."""
        added = [
            ["address", "add", address, "dev", self.interface, *without_asking(address)]
            for address in self.addresses
        ]
        routes = [["route", "add", "default", "via", gateway] for gateway in self.gateways]
        self.namespace.configure([*added, ["link", "set", self.interface, "up"], *routes])


def without_asking(address: str) -> list[str]:
    """Return the words that spare an IPv6 address the second of asking whether it is free."""
    return ["nodad"] if ":" in address else []


def connect(first: Attachment, second: Attachment) -> None:
    """Join two namespaces by a veth pair; it goes when either of them goes."""
    first.namespace.run(
        ["ip", "link", "add", first.interface, "type", "veth",
         "peer", "name", second.interface, "netns", second.namespace.name]
    )  # fmt: skip
    first.bring_up()
    second.bring_up()


@dataclass(frozen=True)
class Pod:
    """A namespace on a node's bridge, with one address of each family."""

    namespace: NetworkNamespace
    address4: str
    address6: str


class NodeNetwork:
    """A node: a namespace that bridges its pods and routes to other nodes.

    Pods come and go with it. Addresses are dealt out in order from the two subnets; the first of
    each is the node's own and the pods' gateway.
    """

    def __init__(self, label: str, subnet4: str, subnet6: str) -> None:
        """Prepare a node with a /24 or so of IPv4 and of IPv6 each; nothing is made yet."""
        self.namespace = NetworkNamespace(label)
        self.subnet4 = ipaddress.IPv4Network(subnet4)
        self.subnet6 = ipaddress.IPv6Network(subnet6)
        self.address4 = str(self.subnet4[1])
        self.address6 = str(self.subnet6[1])
        self._label = label
        self._pod_numbers = itertools.count(2)
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            resources.enter_context(self.namespace)
            self.namespace.forward()
            self.namespace.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
            Attachment(self.namespace, BRIDGE, self._subnet_addresses(1)).bring_up()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def add_pod(self, label: str) -> Pod:
        """Make a pod on this node's bridge, with its default routes through the node."""
        number = next(self._pod_numbers)
        namespace = self._resources.enter_context(NetworkNamespace(f"{self._label}-{label}"))
        port = f"pod{number}"
        connect(
            Attachment(self.namespace, port),
            Attachment(
                namespace, POD_INTERFACE, self._subnet_addresses(number), (self.address4, self.address6)
            ),
        )
        self.namespace.run(["ip", "link", "set", port, "master", BRIDGE])
        return Pod(namespace, str(self.subnet4[number]), str(self.subnet6[number]))

    def _subnet_addresses(self, number: int) -> tuple[str, str]:
        return (
            f"{self.subnet4[number]}/{self.subnet4.prefixlen}",
            f"{self.subnet6[number]}/{self.subnet6.prefixlen}",
        )


def connect_nodes(first: NodeNetwork, second: NodeNetwork, link: int = 0) -> None:
    """Join two nodes by a wire and route each to the other's pods.

    `link` tells apart the wires of a test with more than two nodes (0 to 255).
    """
    ends4 = (f"192.168.{link}.1", f"192.168.{link}.2")
    ends6 = (f"fd00:ffff:{link:x}::1", f"fd00:ffff:{link:x}::2")
    interface = f"node{link}"
    connect(
        Attachment(first.namespace, interface, (f"{ends4[0]}/30", f"{ends6[0]}/64")),
        Attachment(second.namespace, interface, (f"{ends4[1]}/30", f"{ends6[1]}/64")),
    )
    for node, other, gateway in ((first, second, 1), (second, first, 0)):
        node.namespace.run(["ip", "route", "add", str(other.subnet4), "via", ends4[gateway]])
        node.namespace.run(["ip", "-6", "route", "add", str(other.subnet6), "via", ends6[gateway]])
