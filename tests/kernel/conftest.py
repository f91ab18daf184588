"""Cgroups for the two ends of a connection, and sockops over them; the programs of ipvs_bpf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.installations import installation, present
from tests.kernel.ipvs_packets import director_with_services
from tests.kernel.relays import RELAY, Servers, servers
from tests.kernel.topologies import Cgroups, Topology, one_pod
from tests.support import mesh_load
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.leftovers import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.ipvs_programs import Director


@pytest.fixture(scope="session", autouse=True)
def _built_and_clean() -> None:
    """Build the load generator; take down what a killed run before this one left."""
    remove_leftovers()
    mesh_load.build()


@pytest.fixture(scope="module")
def cgroups() -> Iterator[Cgroups]:
    """A cgroup for the programs at each end."""
    with TestCgroup("client") as client, TestCgroup("server") as server:
        yield Cgroups(client, server)


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Sockops]:
    """sockops on for both cgroups and every port, shared by a file's tests: count differences."""
    with accelerated(cgroups.paths) as sockops:
        yield sockops


@pytest.fixture(scope="module")
def topology(cgroups: Cgroups) -> Iterator[Topology]:
    """One pod with a program in each cgroup, shared by a file's tests."""
    with one_pod(cgroups) as made:
        yield made


@pytest.fixture
def own_cgroups() -> Iterator[Cgroups]:
    """Cgroups that no other sockops acts in."""
    with TestCgroup("client") as client, TestCgroup("server") as server_cgroup:
        yield Cgroups(client, server_cgroup)


@pytest.fixture
def own_node(own_cgroups: Cgroups) -> Iterator[Sockops]:
    """A sockops over them, on."""
    with installation() as node:
        present(node, own_cgroups.paths)
        yield node


@pytest.fixture
def relayed(own_cgroups: Cgroups) -> Iterator[Sockops]:
    """A node with one relay, over the servers' cgroup alone: whose the clients are does not matter."""
    with installation() as node:
        present(node, [own_cgroups.server.relative_path], relays=[RELAY])
        yield node


@pytest.fixture
def ends(own_cgroups: Cgroups, relayed: Sockops) -> Iterator[Servers]:
    """Both of its servers."""
    del relayed
    with servers(own_cgroups) as found:
        yield found


@pytest.fixture(scope="module")
def ipvs_programs() -> Iterator[Director]:
    """The programs of ipvs_bpf, loaded once for a file's tests, with services."""
    with director_with_services() as made:
        yield made


@pytest.fixture
def here(ipvs_programs: Director) -> Director:
    """The same without a flow, and with all that is set as it was."""
    ipvs_programs.clear()
    ipvs_programs.configure()
    ipvs_programs.declare_device()
    return ipvs_programs
