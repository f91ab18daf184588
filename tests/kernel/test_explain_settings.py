"""`meshaccel explain` over sockops of other settings: limits, ports, denials, adoption."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.adoption import run
from meshaccel.accelerators.sockops.explanation import programs
from meshaccel.accelerators.sockops.service import Sockops
from tests.kernel.explanations import Explainer
from tests.kernel.observation import wait_until
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.accelerator import accelerated
from tests.support.connections import LARGEST_MESSAGE, connected, open_connection, send_in_pieces
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cgroups import TestCgroup

ExplainerOf = Callable[[Sockops], Explainer]
SMALLEST_LIMIT = 64 * 1024
UNASSIGNED_PORT = 9
SECONDS = 10.0


@pytest.fixture
def explainer_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ExplainerOf:
    """Return what explains the connections of a sockops."""
    return lambda node: Explainer(node, monkeypatch, capsys)


def test_the_memory_limit_is_told_with_what_waits(own_cgroups: Cgroups, explainer_of: ExplainerOf) -> None:
    with (
        accelerated(own_cgroups.paths, receive_memory_limit=SMALLEST_LIMIT) as node,
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        explainer = explainer_of(node)
        # Four fit, the fifth does not.
        written = 5 * LARGEST_MESSAGE
        send_in_pieces(connection.client, written, LARGEST_MESSAGE)
        explained = explainer.explained(connection)
        assert explained["cause"] == "memory"
        assert explained["sentence"].endswith(f"the limit is {SMALLEST_LIMIT}")
        assert explained["bytes"]["redirected"] > 0
        connection.server.receive(written)
        assert explainer.cause(connection) == "resumes"
        connection.exchange()
        assert explainer.cause(connection) == "redirected"


def test_a_connection_from_before_sockops_is_told_so(own_cgroups: Cgroups, explainer_of: ExplainerOf) -> None:
    with (
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
        accelerated(own_cgroups.paths) as node,
    ):
        moved = connection.exchange()
        explained = explainer_of(node).explained(connection)
        assert explained["cause"] == "opened_before"
        assert explained["sentence"].endswith("; sockops_adopt_existing takes it over")
        assert explained["bytes"] == {"redirected": 0, "tcp": moved}
        node.adopt()
        connection.exchange()
        assert explainer_of(node).cause(connection) == "redirected"


def test_an_adoption_that_a_sleeping_reader_held_up_is_told(
    own_cgroups: Cgroups, explainer_of: ExplainerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.5)
    with (
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
        accelerated(own_cgroups.paths) as node,
    ):
        explainer = explainer_of(node)
        reader = threading.Thread(target=connection.server.receive, args=(1,))
        reader.start()
        try:
            wait_until(lambda: sleeps_in_receive(reader), "the reader sleeps")
            node.adopt()
            assert explainer.cause(connection) == "not_adopted"
        finally:
            connection.client.send(1)
            reader.join()


def sleeps_in_receive(thread: threading.Thread) -> bool:
    """Whether a thread of this process is inside recvfrom()."""
    call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text(encoding="ascii").split()[0]
    return call == str(programs.RECEIVING_CALLS[os.uname().machine][0])


def test_ports_that_are_not_named_are_told_with_those_that_are(
    own_cgroups: Cgroups, explainer_of: ExplainerOf
) -> None:
    with (
        accelerated(own_cgroups.paths, ports=[UNASSIGNED_PORT, "11-12"]) as node,
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        connection.exchange()
        explained = explainer_of(node).explained(connection)
        assert explained["cause"] == "port"
        for path in own_cgroups.paths:
            assert f"cgroup {path}: {UNASSIGNED_PORT}, 11-12" in explained["sentence"]


def test_a_denied_network_is_told(own_cgroups: Cgroups, explainer_of: ExplainerOf) -> None:
    with (
        accelerated(own_cgroups.paths, denied_networks=["127.0.0.0/8"]) as node,
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        connection.exchange()
        assert explainer_of(node).cause(connection) == "denied"


def test_a_cgroup_that_a_denied_program_keeps_off_is_told_with_the_program(
    own_cgroups: Cgroups, explainer_of: ExplainerOf
) -> None:
    with (
        sleeping_program(own_cgroups.server) as process_id,
        accelerated(own_cgroups.paths, denied_executables=["sleep"]) as node,
        one_pod(own_cgroups) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        explained = explainer_of(node).explained(connection)
        assert explained["cause"] == "cgroup_off"
        assert f"sleep (process {process_id}), which is in sockops_denied_exec" in explained["sentence"]


def test_a_full_table_is_told(own_cgroups: Cgroups, explainer_of: ExplainerOf) -> None:
    with (
        accelerated(own_cgroups.paths, maximum_connections=1) as node,
        one_pod(own_cgroups) as pod,
        pod.server.listen("0.0.0.0") as listener,
        open_connection(pod.client, listener, pod.address4) as first,
        open_connection(pod.client, listener, pod.address4) as second,
    ):
        explainer = explainer_of(node)
        assert (explainer.cause(first), explainer.cause(second)) == ("no_message", "table_full")


@contextlib.contextmanager
def sleeping_program(cgroup: TestCgroup) -> Iterator[int]:
    """Run sleep in a cgroup meanwhile and give its process id."""
    with ManagedProcess(["sleep", "60"], Placement(cgroup=cgroup)) as process:
        executable = Path(f"/proc/{process.pid}/exe")
        process.wait_until(lambda: executable.resolve().name == "sleep", "the program", SECONDS)
        yield process.pid
