"""The probe over a real sockops: what it finds, and that nothing of it stays however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.probe import ProbeFailed, Settings, exchange, measure, measurement, sockops_counters
from meshaccel.probe.processes import worker
from meshaccel.probe.settings import payload
from meshaccel.system.temporary_cgroup import NAME_PREFIX, temporary_cgroup
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup, cgroup2_mount
from tests.support.modules import run_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20.0
MESSAGE = payload(1000)
#: Measures for minutes unless something ends it. Argument: the cgroup.
ENDLESS = """
import sys
from meshaccel.probe import Settings, measure
measure(Settings(b"ping", b"ping", cgroup=sys.argv[1], messages=10_000_000, duration=600))
"""


def settings(cgroup: TestCgroup) -> Settings:
    return Settings(MESSAGE, MESSAGE, cgroup=cgroup.relative_path, messages=40)


def serve(send: Callable[[object], None]) -> None:
    """Echo on a free port, which is sent first."""
    with exchange.listen() as listener:
        send(listener.getsockname()[1])
        exchange.serve(listener)


def serve_wrongly(send: Callable[[object], None]) -> None:
    """Answer the first message with something else."""
    with exchange.listen() as listener:
        send(listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"something else")
            time.sleep(SECONDS)


def probe_cgroups(process_id: int) -> list[Path]:
    """Return the cgroups that a process's probe has right now."""
    return list(cgroup2_mount().glob(f"**/{NAME_PREFIX}{process_id}"))


def children(process_id: int) -> set[int]:
    """Return the child processes of a process, those not yet reaped included."""
    text = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii")
    return {int(word) for word in text.split()}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s"
        time.sleep(0.01)


@pytest.fixture
def cgroup() -> Iterator[TestCgroup]:
    with TestCgroup("probed") as made:
        yield made


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Check after the test that its process has the children it had, and no cgroup of a probe."""
    before = children(os.getpid())
    yield
    assert children(os.getpid()) == before
    assert not probe_cgroups(os.getpid())


@pytest.mark.usefixtures("nothing_stays")
class TestComparison:
    def test_only_the_arm_in_the_accelerated_cgroup_is_redirected(self, cgroup: TestCgroup) -> None:
        with accelerated([cgroup.relative_path]) as sockops:
            counters = partial(sockops_counters, sockops, cgroup.relative_path)
            found = measure(replace(settings(cgroup), connections=3), counters=counters)

        assert found["redirected"] is True
        assert found["arms"]["on"]["redirected_share"] == 1
        assert found["arms"]["off"]["redirected_share"] == 0
        assert [run["arm"] for run in found["runs"]] == ["off", "on", "on", "off"]
        assert set(found["ratio"]) == set(found["arms"]["on"]) - {"redirected_share"}
        # Two runs of three fresh connections; forty messages in each, both ways.
        assert found["counters"]["connections_paired"] == 2 * 3
        assert found["counters"]["redirected_messages"] == 2 * 40 * 2
        assert found["counters"]["redirected_bytes"] == 2 * 40 * 2 * len(MESSAGE)

    def test_a_cgroup_that_is_not_accelerated_is_told_apart(self, cgroup: TestCgroup) -> None:
        with TestCgroup("other") as other, accelerated([other.relative_path]) as sockops:
            counters = partial(sockops_counters, sockops, cgroup.relative_path)
            found = measure(settings(cgroup), counters=counters)

        assert found["redirected"] is False
        assert found["counters"] is None

    def test_the_reason_to_stay_on_tcp_is_counted(self, cgroup: TestCgroup) -> None:
        with accelerated([cgroup.relative_path], ports=[1]) as sockops:
            counters = partial(sockops_counters, sockops, cgroup.relative_path)
            found = measure(replace(settings(cgroup), connections=3), counters=counters)

        assert found["redirected"] is False
        assert found["counters"]["skipped_port"] == 2 * 3

    def test_a_service_in_an_accelerated_cgroup_of_its_own(self, cgroup: TestCgroup) -> None:
        with (
            TestCgroup("service") as service,
            accelerated([cgroup.relative_path, service.relative_path]),
            worker("a service", str(service.path), serve) as running,
        ):
            port = running.receive(int, SECONDS)
            found = measure(replace(settings(cgroup), address=exchange.LOOPBACK, port=port))

        assert found["arms"]["on"]["redirected_share"] == 1
        assert found["arms"]["off"]["redirected_share"] == 0

    def test_the_module_measures_a_cgroup(self, cgroup: TestCgroup) -> None:
        found = run_module("mesh_probe", cgroup=str(cgroup.path), messages=20, pairs=1)

        assert found["changed"] is False
        assert found["redirected"] is False
        assert found["arms"].keys() == {"on", "off"}


@pytest.mark.usefixtures("nothing_stays")
class TestFailures:
    def test_a_wrong_echo(self, cgroup: TestCgroup) -> None:
        with worker("a service", None, serve_wrongly) as running:
            port = running.receive(int, SECONDS)
            with pytest.raises(ProbeFailed, match="something else"):
                measure(replace(settings(cgroup), address=exchange.LOOPBACK, port=port))

    def test_a_service_that_stops_meanwhile(self, cgroup: TestCgroup) -> None:
        with worker("a service", None, serve) as running:
            port = running.receive(int, SECONDS)
        with pytest.raises(ProbeFailed, match="Connection refused"):
            measure(replace(settings(cgroup), address=exchange.LOOPBACK, port=port))

    def test_a_client_that_hangs_is_ended(self, cgroup: TestCgroup, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measurement, "GRACE_SECONDS", 0.5)
        monkeypatch.setattr(exchange, "ask", lambda _: time.sleep(600))

        with pytest.raises(ProbeFailed, match="a result from the client; found nothing after"):
            measure(replace(settings(cgroup), duration=0.4))

    def test_a_cgroup_that_takes_no_processes(self, cgroup: TestCgroup) -> None:
        threaded = cgroup.path / "threaded"
        threaded.mkdir()
        try:
            (threaded / "cgroup.type").write_text("threaded", encoding="ascii")
            with pytest.raises(ProbeFailed, match="neither threaded nor frozen"):
                measure(replace(settings(cgroup), cgroup=str(threaded)))
        finally:
            threaded.rmdir()

    def test_a_cgroup_below_which_none_can_be_made(self, cgroup: TestCgroup) -> None:
        (cgroup.path / "cgroup.max.descendants").write_text("0", encoding="ascii")

        with pytest.raises(ProbeFailed, match=f"a cgroup for the probe below {cgroup.path}"):
            measure(settings(cgroup))


@contextlib.contextmanager
def endless_probe(cgroup: TestCgroup) -> Iterator[subprocess.Popen[bytes]]:
    """Run a probe in a process of its own that is in the middle of a run; yield the process."""
    command = [sys.executable, "-c", ENDLESS, cgroup.relative_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "module_utils")}
    process = subprocess.Popen(command, env=environment)
    try:
        # The echo server and the client.
        wait_until(lambda: len(children(process.pid)) == 2, "a run under way")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_probe_without_a_trace(cgroup: TestCgroup, number: signal.Signals) -> None:
    with endless_probe(cgroup) as process:
        started = children(process.pid)
        process.send_signal(number)
        process.wait(SECONDS)

        assert not probe_cgroups(process.pid)
        assert not any(Path(f"/proc/{child}").exists() for child in started)


def test_the_processes_of_a_killed_probe_die_with_it_and_the_next_one_removes_its_cgroups(
    cgroup: TestCgroup,
) -> None:
    with endless_probe(cgroup) as process:
        started = children(process.pid)
        process.kill()
        process.wait(SECONDS)
        wait_until(
            lambda: not any(Path(f"/proc/{child}").exists() for child in started), "the end of its processes"
        )

        # The one below the root may already be gone: other probes on this machine remove it as well.
        assert (cgroup.path / f"{NAME_PREFIX}{process.pid}").is_dir()
        with temporary_cgroup(str(cgroup.path)), temporary_cgroup(str(cgroup2_mount())):
            assert not probe_cgroups(process.pid)
