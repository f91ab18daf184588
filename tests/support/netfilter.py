"""Address translation in a test's namespaces, as a mesh's init container and kube-proxy set it up.

Each rule exists for nftables and for iptables, because connection pairing has to hold under both;
a rule goes with the namespace it is in.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.namespaces import NetworkNamespace

TABLE = "meshaccel_test"


class Tool(enum.Enum):
    """The program that writes the rule."""

    NFTABLES = "nft"
    IPTABLES = "iptables"


class Hook(enum.Enum):
    """Where a rule acts: on packets that arrive, that this namespace sends, or that leave it."""

    PREROUTING = "prerouting"
    OUTPUT = "output"
    POSTROUTING = "postrouting"

    @property
    def priority(self) -> int:
        """The kernel's priority for address translation at this hook (NF_IP_PRI_NAT_DST, _SRC)."""
        return 100 if self is Hook.POSTROUTING else -100


@dataclass(frozen=True)
class Endpoint:
    """An address of either family and a TCP port."""

    address: str
    port: int

    @property
    def family(self) -> str:
        """The nftables name of the address family."""
        return "ip6" if self.version == 6 else "ip"

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.version == 6 else self.address
        return f"{host}:{self.port}"


def redirect_outbound(
    namespace: NetworkNamespace,
    proxy_port: int,
    *,
    proxy_user_id: int,
    tool: Tool = Tool.NFTABLES,
) -> None:
    """Send what this namespace connects to outside of it to a proxy in here, as Istio does.

    Connections of the proxy itself, told by its user, and those over loopback are left alone.
    """
    not_proxy = f'meta skuid != {proxy_user_id} oifname != "lo" meta l4proto tcp'
    options = f"-p tcp -m owner ! --uid-owner {proxy_user_id} ! -o lo"
    rule = Rule(
        Hook.OUTPUT,
        f"{not_proxy} redirect to :{proxy_port}",
        f"{options} -j REDIRECT --to-ports {proxy_port}",
    )
    rule.add(namespace, tool)


def redirect_loopback(
    namespace: NetworkNamespace, port: int, proxy_port: int, *, tool: Tool = Tool.NFTABLES
) -> None:
    """Send connections made in here to `port` over loopback to `proxy_port`."""
    rule = Rule(
        Hook.OUTPUT,
        f'oifname "lo" tcp dport {port} redirect to :{proxy_port}',
        f"-o lo -p tcp --dport {port} -j REDIRECT --to-ports {proxy_port}",
    )
    rule.add(namespace, tool)


def redirect_inbound(
    namespace: NetworkNamespace, port: int, proxy_port: int, *, tool: Tool = Tool.NFTABLES
) -> None:
    """Send connections that arrive from outside for `port` to a proxy in here."""
    rule = Rule(
        Hook.PREROUTING,
        f"tcp dport {port} redirect to :{proxy_port}",
        f"-p tcp --dport {port} -j REDIRECT --to-ports {proxy_port}",
    )
    rule.add(namespace, tool)


def translate_destination(
    namespace: NetworkNamespace,
    service: Endpoint,
    backend: Endpoint,
    *,
    hook: Hook = Hook.PREROUTING,
    tool: Tool = Tool.NFTABLES,
) -> None:
    """Send connections for `service` to `backend` (DNAT), as kube-proxy does for a ClusterIP.

    `hook` is PREROUTING for connections routed by this namespace, OUTPUT for its own.
    """
    family = service.family
    rule = Rule(
        hook,
        f"{family} daddr {service.address} tcp dport {service.port} dnat {family} to {backend}",
        f"-p tcp -d {service.address} --dport {service.port} -j DNAT --to-destination {backend}",
        versions=(service.version,),
    )
    rule.add(namespace, tool)


def masquerade_with_random_ports(
    namespace: NetworkNamespace, interface: str, *, tool: Tool = Tool.NFTABLES
) -> None:
    """Give connections that leave by `interface` its address and a random source port (SNAT)."""
    rule = Rule(
        Hook.POSTROUTING,
        f'oifname "{interface}" meta l4proto tcp masquerade fully-random',
        f"-o {interface} -p tcp -j MASQUERADE --random-fully",
    )
    rule.add(namespace, tool)


@dataclass(frozen=True)
class Rule:
    """One rule of the nat table, in the words of either tool."""

    hook: Hook
    nftables: str
    iptables: str
    versions: Sequence[int] = (4, 6)

    def add(self, namespace: NetworkNamespace, tool: Tool) -> None:
        """Append the rule by `tool`; raises ProcessError when the kernel refuses it."""
        if tool is Tool.NFTABLES:
            chain = f"type nat hook {self.hook.value} priority {self.hook.priority};"
            _add_nft_rule(namespace, self.hook.value, chain, self.nftables)
            return
        for version in self.versions:
            program = "iptables" if version == 4 else "ip6tables"
            words = self.iptables.split()
            namespace.run([program, "-w", "-t", "nat", "-A", self.hook.name, *words])


def _add_nft_rule(namespace: NetworkNamespace, chain: str, definition: str, rule: str) -> None:
    namespace.run(
        ["nft", "-f", "-"],
        standard_input=(
            f"add table inet {TABLE}\n"
            f"add chain inet {TABLE} {chain} {{ {definition} }}\n"
            f"add rule inet {TABLE} {chain} {rule}\n"
        ),
    )
