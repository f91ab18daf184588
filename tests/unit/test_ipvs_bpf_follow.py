"""The follow daemon: when it runs the command, how often, and that nothing stops it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from meshaccel import lock
from meshaccel.accelerators.ipvs_bpf import follow
from meshaccel.accelerators.ipvs_bpf.follow import BUSY, Follower, table_digest
from meshaccel.errors import Busy
from tests.support.accelerator import node_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshaccel.system import netlink

TABLE = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr
  -> 0AF40005:1F90      Masq    1      0          0
"""
NODE_LOCK = "/run/meshaccel/lock"
PACKAGE = Path(follow.__file__).parents[3]


class Clock:
    """Time that passes only when told, and what was run in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.codes: list[int] = []
        self.run: list[list[str]] = []
        self.table = 1
        #: What a run takes, and how much of that is CPU.
        self.run_seconds, self.cpu_share = 0.5, 1.0
        self.cpu = 0.0
        self.held = False
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(follow, "table_digest", lambda: self.table)
        monkeypatch.setattr(follow, "cpu_of_runs", lambda: self.cpu)
        monkeypatch.setattr(lock, "is_held", lambda _: self.held)
        monkeypatch.setattr(subprocess, "run", self._run)

    def _run(self, arguments: Sequence[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.run.append(list(arguments))
        self.now += self.run_seconds
        self.cpu += self.run_seconds * self.cpu_share
        return subprocess.CompletedProcess(arguments, self.codes.pop(0) if self.codes else 0)

    def pass_time(self, follower: Follower, seconds: float) -> None:
        """Let the daemon do what it does in so many seconds, unless something happens."""
        end = self.now + seconds
        while self.now < end:
            follower.look(self.now)
            follower.run_if_due(self.now)
            self.now = min(end, self.now + max(0.01, follower.waits(self.now)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


ONCE = ["meshaccel", "follow", "ipvs_bpf", "--once"]


def test_it_converges_when_it_starts_and_then_only_tends(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 59)
    assert clock.run[0] == [*ONCE, "--tend"]
    assert clock.run[1:] in ([], [ONCE])
    clock.run.clear()
    clock.pass_time(follower, 61)
    assert [*ONCE, "--tend"] in clock.run
    assert len(clock.run) <= 2


def test_a_burst_of_changes_is_one_run_once_it_has_settled(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 10)
    clock.run.clear()
    for _ in range(100):
        follower.changed(clock.now)
        clock.now += 0.001
    assert clock.run == []
    clock.pass_time(follower, 5)
    assert clock.run == [ONCE]


def test_changes_without_end_take_a_quarter_of_one_cpu(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 10)
    clock.run.clear()
    for _ in range(200):
        follower.changed(clock.now)
        clock.pass_time(follower, 0.1)
    assert 5 <= len(clock.run) <= 20 / (4 * 0.5) + 1


def test_a_change_of_ipvs_s_table_is_seen_within_seconds(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 10)
    clock.run.clear()
    clock.table = 2
    clock.pass_time(follower, 2.5)
    assert clock.run == [ONCE]


@pytest.mark.parametrize(("code", "runs"), [(0, 1), (1, 2), (BUSY, 4)])
def test_what_failed_is_tried_again_and_what_was_busy_soon(clock: Clock, code: int, runs: int) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 10)
    clock.run.clear()
    clock.codes = [code] * 4
    follower.changed(clock.now)
    clock.pass_time(follower, 8)
    assert len(clock.run) >= runs
    assert len(clock.run) <= runs + 1


def test_while_another_run_has_the_node_nothing_is_started(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.held = True
    for _ in range(300):
        follower.changed(clock.now)
        clock.pass_time(follower, 1)
    assert clock.run == []
    clock.held = False
    clock.pass_time(follower, 2)
    assert clock.run == [[*ONCE, "--tend"]]


def test_a_run_shortly_before_it_is_time_to_tend_tends_as_well(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 20)
    clock.run.clear()
    follower.changed(clock.now)
    clock.pass_time(follower, 20)
    follower.changed(clock.now)
    clock.pass_time(follower, 50)
    assert clock.run == [ONCE, [*ONCE, "--tend"]]


def test_a_tending_that_failed_is_made_up_for(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.codes = [1, BUSY]
    clock.pass_time(follower, 30)
    assert clock.run == [[*ONCE, "--tend"]] * 3


@pytest.mark.parametrize("seconds", [0.3, 7.0, 20.0])
def test_tending_takes_a_twentieth_of_one_cpu_however_slow_the_node_is(clock: Clock, seconds: float) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.run_seconds = seconds
    clock.pass_time(follower, 3600)
    assert clock.cpu <= 3600 * follow.SHARE_OF_CPU + 2 * seconds
    assert len(clock.run) >= min(3600 / follow.TEND_SECONDS, 3600 * follow.SHARE_OF_CPU / seconds) * 0.9


def test_a_run_that_waited_for_sessions_to_end_has_the_next_tending_in_time(clock: Clock) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.run_seconds, clock.cpu_share = 300, 0.001
    clock.pass_time(follower, 301)
    assert follower.next_tend <= clock.now + follow.TEND_SECONDS


def test_the_cpu_of_runs_is_that_of_ended_processes() -> None:
    before = follow.cpu_of_runs()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert follow.cpu_of_runs() > before


def test_a_command_that_cannot_be_started_is_told_and_tried_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "no such command")

    monkeypatch.setattr(subprocess, "run", missing)
    follower = Follower(["meshaccel"], NODE_LOCK)
    follower.run_if_due(clock.now)
    assert "no such command" in capsys.readouterr().err
    assert clock.now < follower.next_run <= clock.now + follow.AGAIN_SECONDS


def test_looks_at_a_large_table_take_a_twentieth_of_one_cpu(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def slow_digest() -> int:
        looks.append(clock.now)
        clock.now += 0.5
        return 1

    monkeypatch.setattr(follow, "table_digest", slow_digest)
    follower = Follower(["meshaccel"], NODE_LOCK)
    follower.look(clock.now)
    for _ in range(100):
        clock.now += 1.0
        follower.look(clock.now)
    assert 0.5 * len(looks) <= 0.05 * (clock.now - looks[0]) + 0.5


class Source:
    """Something that tells of events: of none, or of one that cannot be read."""

    def __init__(self, *, tells: bool = True, error: OSError | None = None) -> None:
        self.ours, self.others = socket.socketpair()
        self.tells, self.error = tells, error
        self.others.send(b"event")

    def fileno(self) -> int:
        return self.ours.fileno()

    def wait(self, _: float) -> bool:
        if self.error is not None:
            raise self.error
        return self.tells

    def close(self) -> None:
        self.ours.close()
        self.others.close()


@pytest.mark.parametrize(("tells", "runs"), [(True, [ONCE]), (False, [])])
def test_an_event_is_a_reason_to_run_and_a_socket_without_one_is_none(
    clock: Clock, tells: bool, runs: list[list[str]]
) -> None:
    follower = Follower(["meshaccel"], NODE_LOCK)
    clock.pass_time(follower, 10)
    clock.run.clear()
    with contextlib.closing(Source(tells=tells)) as source:
        follow.step(follower, [cast("netlink.Events", source)])
    clock.pass_time(follower, 5)
    assert clock.run == runs


def test_an_error_is_told_and_ends_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    follower = Follower(["meshaccel"], NODE_LOCK)
    with contextlib.closing(Source(error=OSError(5, "injected"))) as source:
        follow.step(follower, [cast("netlink.Events", source)])
    assert "injected" in capsys.readouterr().err
    assert len(clock.run) == 1, "what is due is done all the same"


def test_the_digest_is_of_what_services_and_servers_there_are(tmp_path: Path) -> None:
    listing = tmp_path / "ip_vs"
    assert table_digest(str(listing)) == 0
    listing.write_text(TABLE)
    digest = table_digest(str(listing))
    listing.write_text(TABLE.replace("1      0          0", "50     7          9"))
    assert table_digest(str(listing)) == digest, "weights and connections change all the time"
    listing.write_text(TABLE.replace("0AF40005", "0AF40006"))
    assert table_digest(str(listing)) != digest
    listing.write_text(TABLE.replace("rr", "wlc"))
    assert table_digest(str(listing)) != digest


def test_one_daemon_follows_a_node(tmp_path: Path) -> None:
    paths = node_paths(tmp_path, tmp_path / "bpffs")
    assert not lock.is_held(paths.follower)
    with lock.held(paths.follower, "a daemon"):
        assert lock.is_held(paths.follower)
        with pytest.raises(Busy, match="it is held by a daemon"):
            follow.follow(paths)
    assert not lock.is_held(paths.follower)
    assert not Path(paths.runtime).exists()


def test_ended_as_by_systemd_it_leaves_no_file_of_its_lock(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    script = (
        "from meshaccel.accelerators.ipvs_bpf import follow; from meshaccel.paths import NodePaths; "
        f"follow.follow(NodePaths(runtime={str(runtime)!r}, command='/bin/true'))"
    )
    with subprocess.Popen([sys.executable, "-c", script], env={"PYTHONPATH": str(PACKAGE)}) as daemon:
        deadline = time.monotonic() + 20
        while not runtime.exists():
            assert time.monotonic() < deadline
            assert daemon.poll() is None
            time.sleep(0.05)
        daemon.terminate()
        assert daemon.wait(20) == 0
    assert not runtime.exists()
