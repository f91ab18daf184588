"""What connection tracking has of a namespace's masqueraded flows."""

from __future__ import annotations

import socket

from meshaccel.system import conntrack, network_namespaces
from meshaccel.system.conntrack import Direction, Flow
from tests.support.namespaces import Attachment, NetworkNamespace, connect
from tests.support.netfilter import masquerade_with_random_ports

CLIENT, NODE_INSIDE, NODE, BACKEND = "10.94.0.2", "10.94.0.1", "10.93.0.1", "10.93.0.2"
PREFIX = "fd93:"


def test_the_ports_given_to_masqueraded_flows() -> None:
    with (
        NetworkNamespace("node") as node,
        NetworkNamespace("client") as client,
        NetworkNamespace("back") as back,
    ):
        connect(Attachment(node, "in", (f"{NODE_INSIDE}/24",)), Attachment(client, "end", (f"{CLIENT}/24",)))
        connect(
            Attachment(node, "out", (f"{NODE}/24", f"{PREFIX}:1/64")),
            Attachment(back, "end", (f"{BACKEND}/24", f"{PREFIX}:2/64")),
        )
        client.run(["ip", "route", "add", "default", "via", NODE_INSIDE])
        node.set_sysctl("net.ipv4.ip_forward", "1")
        masquerade_with_random_ports(node, "out")
        node.run(["nft", "add rule inet meshaccel_test postrouting meta l4proto udp masquerade"])
        with network_namespaces.entered(str(node.path)):
            before = conntrack.count()
        with network_namespaces.entered(str(client.path)), socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.bind((CLIENT, 4000))
            sender.sendto(b"packet", (BACKEND, 53))
        with (
            network_namespaces.entered(str(node.path)),
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own,
        ):
            own.sendto(b"packet", (f"{PREFIX}:2", 53))
            port = own.getsockname()[1]
            assert conntrack.present()
            assert conntrack.count() == before + 2
            (flow,) = conntrack.replies_to([NODE])
            assert flow == Flow(
                "udp",
                Direction(CLIENT, BACKEND, 4000, 53),
                Direction(BACKEND, NODE, 53, flow.reply.destination_port),
            )
            (flow6,) = conntrack.replies_to([f"{PREFIX}:1", "10.93.0.11"])
            assert flow6.reply == Direction(f"{PREFIX}:2", f"{PREFIX}:1", 53, port)
