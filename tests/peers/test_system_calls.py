"""Calls on TCP sockets end as they do without sockops, but for what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.peers.arms import compare
from tests.peers.differences import accepted, differing
from tests.peers.pod import accelerated_pod
from tests.peers.system_calls import CALLS
from tests.support.connections import connected
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from tests.support.connections import Connection


def test_only_known_calls_differ() -> None:
    with (
        accelerated_pod("calls", "client", "server") as pod,
        SocketMaker(pod.namespace, pod.cgroups["client"]) as client,
        SocketMaker(pod.namespace, pod.cgroups["server"]) as server,
    ):

        def go_through_all() -> dict[str, str]:
            answers = {}
            for name, call in CALLS.items():
                with connected(client, server, ADDRESS) as connection:
                    say_hello(connection)
                    answers[name] = call(connection)
            return answers

        off, on = compare(pod.node, go_through_all)
    differences = differing(off.result, on.result)
    assert differences.keys() == accepted("system calls").keys(), differences
    assert on.counted["connections_paired"] == len(CALLS)
    # A greeting each way, and at least one message of each call but for the one that waits for none.
    assert on.counted["redirected_messages"] >= 3 * len(CALLS) - 1
    assert on.counted.get("tcp_bytes", 0) == 0


def say_hello(connection: Connection) -> None:
    """Exchange bytes both ways, so that both ends know of each other."""
    connection.client.send(1)
    connection.server.receive(1)
    connection.server.send(1)
    connection.client.receive(1)
