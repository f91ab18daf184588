"""Programs that redirected sockets do not suit: the cgroup of each stays on TCP, and the operator is told."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.installations import present
from tests.kernel.observation import assert_accelerates, assert_by_tcp, assert_redirected
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from meshaccel.engine import Result

SECONDS = 10.0


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of this name that does nothing for as long as it is asked to."""
    path = tmp_path_factory.mktemp("programs") / "haproxy"
    shutil.copy2("/bin/sleep", path)
    return path


@contextlib.contextmanager
def running(program: Path, cgroup: TestCgroup) -> Iterator[ManagedProcess]:
    """Have a process of the program in a cgroup meanwhile."""
    with ManagedProcess([str(program), "1000"], Placement(cgroup=cgroup)) as process:
        executable = Path(f"/proc/{process.pid}/exe")
        process.wait_until(lambda: executable.readlink() == program, str(program), SECONDS)
        yield process


def modes(node: Sockops) -> dict[str, str]:
    """Return the mode of each cgroup."""
    return {path: entry["mode"] for path, entry in node.status()["cgroups"].items()}


def assert_tells(result: Result, process: ManagedProcess, cgroup: TestCgroup) -> None:
    """The note says which cgroup, which process, which executable, and what to do."""
    (note,) = result.notes
    for word in (cgroup.relative_path, str(process.pid), process.command[0], "sockops_denied_executables"):
        assert word in note


def test_a_cgroup_with_a_denied_executable_stays_on_tcp(
    own_node: Sockops, own_cgroups: Cgroups, haproxy: Path
) -> None:
    """Check mode says so first; the run after it changes nothing and says so again."""
    server = own_cgroups.server
    wish = own_node.parse({"cgroups": own_cgroups.paths})
    with running(haproxy, server) as process, one_pod(own_cgroups) as topology:
        promised = own_node.converge(wish, check_mode=True)
        assert promised.changed
        assert promised.after["cgroups"][server.relative_path]["mode"] == "off"
        assert_tells(promised, process, server)
        assert modes(own_node)[server.relative_path] == "on"
        assert own_node.converge(wish).after == promised.after
        again = own_node.converge(wish)
        assert not again.changed
        assert_tells(again, process, server)
        assert modes(own_node) == {own_cgroups.client.relative_path: "on", server.relative_path: "off"}
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert_by_tcp(own_node, topology, connection)


def test_one_that_appears_later_gives_live_connections_back(
    own_node: Sockops, own_cgroups: Cgroups, haproxy: Path
) -> None:
    """And once it has gone, new connections are accelerated again."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(own_node, topology, connection)
        with running(haproxy, own_cgroups.client):
            assert present(own_node, own_cgroups.paths).changed
            assert own_node.live_sockets() == 0
            assert_by_tcp(own_node, topology, connection)
        result = present(own_node, own_cgroups.paths)
        assert result.changed
        assert result.notes == ()
        assert_accelerates(own_node, own_cgroups)
        connection.bulk(1_000_000)


def test_of_an_opted_in_parent_only_the_childs_own_cgroup_is_left_out(
    own_node: Sockops, haproxy: Path
) -> None:
    """One pod with haproxy does not take the others of its node along."""
    with (
        TestCgroup("pods") as pods,
        TestCgroup("client", parent=pods) as client,
        TestCgroup("server", parent=pods) as server,
        TestCgroup("proxy", parent=pods) as proxy,
    ):
        with running(haproxy, proxy) as process:
            assert_tells(present(own_node, [pods.relative_path]), process, proxy)
            assert modes(own_node) == {pods.relative_path: "on", proxy.relative_path: "off"}
            assert_accelerates(own_node, Cgroups(client, server))
            with (
                one_pod(Cgroups(client, proxy)) as topology,
                connected(topology.client, topology.server, topology.address4) as connection,
            ):
                assert_by_tcp(own_node, topology, connection)
        assert present(own_node, [pods.relative_path]).changed
        assert modes(own_node) == {pods.relative_path: "on"}
        assert_accelerates(own_node, Cgroups(client, proxy))


@pytest.mark.parametrize("denied", [[], ["nginx", "/usr/sbin/haproxy"]], ids=["none", "others"])
def test_what_is_not_on_the_list_is_accelerated(
    own_node: Sockops, own_cgroups: Cgroups, haproxy: Path, denied: list[str]
) -> None:
    with running(haproxy, own_cgroups.server):
        result = present(own_node, own_cgroups.paths, denied_executables=denied)
        assert result.notes == ()
        assert_accelerates(own_node, own_cgroups)


def test_an_executable_by_its_path_even_after_an_upgrade_replaced_it(
    own_node: Sockops, own_cgroups: Cgroups, haproxy: Path, tmp_path: Path
) -> None:
    program = tmp_path / "proxy"
    shutil.copy2(haproxy, program)
    with running(program, own_cgroups.server) as process:
        program.unlink()
        result = present(own_node, own_cgroups.paths, denied_executables=[str(program)])
        assert_tells(result, process, own_cgroups.server)


def test_cgroups_that_are_not_opted_in_are_nobodys_business(
    own_node: Sockops, own_cgroups: Cgroups, haproxy: Path
) -> None:
    with TestCgroup("elsewhere") as elsewhere, running(haproxy, elsewhere):
        assert not present(own_node, own_cgroups.paths).changed
