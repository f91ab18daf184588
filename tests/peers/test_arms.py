"""The comparison that the other tests here rest on finds what it is for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.installations import present
from tests.peers.arms import assert_accelerated, assert_same
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected
from tests.support.namespaces import NetworkNamespace
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Ends:
    """Two places for the ends of connections over a loopback."""

    client: SocketMaker
    server: SocketMaker
    cgroups: tuple[str, str]

    def exchange(self) -> int:
        """Move data both ways over a new connection; return how much."""
        with connected(self.client, self.server, ADDRESS) as connection:
            return connection.exchange()


@pytest.fixture(scope="module")
def ends() -> Iterator[Ends]:
    """A cgroup for each end, in one namespace."""
    with (
        NetworkNamespace("arms") as namespace,
        TestCgroup("client") as client,
        TestCgroup("server") as server,
        SocketMaker(namespace, client) as client_maker,
        SocketMaker(namespace, server) as server_maker,
    ):
        yield Ends(client_maker, server_maker, (client.relative_path, server.relative_path))


@pytest.fixture(scope="module")
def node(ends: Ends) -> Iterator[Sockops]:
    """sockops for both ends."""
    with accelerated(ends.cgroups) as sockops:
        yield sockops


def test_traffic_between_named_cgroups_counts(ends: Ends, node: Sockops) -> None:
    outcome = assert_same(node, ends.exchange)
    assert_accelerated(outcome, outcome.result, share=0.99)


@pytest.mark.parametrize("named", [0, 1], ids=["client", "server"])
def test_traffic_of_one_named_cgroup_does_not_count(ends: Ends, node: Sockops, named: int) -> None:
    present(node, [ends.cgroups[named]])
    try:
        outcome = assert_same(node, ends.exchange)
    finally:
        present(node, ends.cgroups)
    with pytest.raises(AssertionError, match=r"assert 0 > \(0.5 \*"):
        assert_accelerated(outcome, outcome.result)


def test_different_results_are_found(node: Sockops) -> None:
    results = itertools.count()
    with pytest.raises(AssertionError, match="do not do what"):
        assert_same(node, lambda: next(results))


def test_a_connection_that_lives_into_the_other_arm_is_found(ends: Ends, node: Sockops) -> None:
    node.switch(Mode.ON)
    with (
        connected(ends.client, ends.server, ADDRESS) as connection,
        pytest.raises(AssertionError, match="while it was off"),
    ):
        assert_same(node, connection.exchange)
