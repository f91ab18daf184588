"""The node's command on a live sockops: real connections change their way, and what was said holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import command, holds
from meshaccel.accelerators.sockops.observe import Places
from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.model import Json, Mode
from tests.kernel.installations import present
from tests.kernel.observation import Counted, assert_by_tcp, assert_redirected, wait_until
from tests.kernel.topologies import Cgroups, Topology
from tests.support.cgroups import TestCgroup
from tests.support.connections import Connection, connected
from tests.support.exposition import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.holds import Hold
    from meshaccel.paths import NodePaths

Call = Callable[..., str]
Attempt = Callable[..., tuple[int, str, str]]
PREFIX = "meshaccel_sockops_"


@pytest.fixture
def attempt(
    node: Sockops, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Attempt]:
    """Return what runs the command here: exit code, output and errors. sockops is on again at the end."""
    monkeypatch.setattr(Sockops, "on_this_node", lambda _: node)
    monkeypatch.setattr(command, "NodePaths", lambda: node.paths)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = command.main(list(arguments))
        return (code, *capsys.readouterr())

    yield run
    Path(node.paths.holds).unlink(missing_ok=True)
    present(node, cgroups.paths)


@pytest.fixture
def call(attempt: Attempt) -> Call:
    """Return what runs the command, which has to succeed, and returns its output."""

    def run(*arguments: str) -> str:
        code, output, errors = attempt(*arguments)
        assert (code, errors) == (0, "")
        return output

    return run


@pytest.fixture
def live(node: Sockops, topology: Topology, attempt: Attempt) -> Iterator[Connection]:
    """A connection that is accelerated when the test begins."""
    assert attempt("status")[0] == 0
    with connected(topology.client, topology.server, topology.address4) as connection:
        assert_redirected(node, topology, connection)
        yield connection


def assert_new_connection(node: Sockops, topology: Topology, *, accelerated: bool) -> None:
    """What is opened now goes socket to socket, or by TCP."""
    check = assert_redirected if accelerated else assert_by_tcp
    with connected(topology.client, topology.server, topology.address4) as connection:
        check(node, topology, connection)


def shown(call: Call) -> dict[str, Json]:
    """Return what `status --json` shows of sockops."""
    status: dict[str, Json] = json.loads(call("status", "--json"))["sockops"]
    return status


# ---- switching ----


def test_off_takes_live_and_new_connections_to_tcp_until_on(
    call: Call, node: Sockops, topology: Topology, live: Connection
) -> None:
    assert call("off", "sockops") == "sockops off\n"
    assert_by_tcp(node, topology, live)
    assert_new_connection(node, topology, accelerated=False)
    assert shown(call)["held"] == {"mode": "off", "cgroups": {}}
    assert node.live_sockets() == 0

    assert call("on", "sockops") == "sockops on\n"
    assert_new_connection(node, topology, accelerated=True)
    live.bulk(1_000_000)
    assert shown(call)["held"] is None


def test_adopt_takes_over_what_off_gave_back(
    call: Call, node: Sockops, topology: Topology, live: Connection
) -> None:
    call("off", "sockops")
    call("on", "sockops")
    assert_by_tcp(node, topology, live)
    assert call("adopt", "sockops").startswith("adopted 1 of 1 live connections within this node")
    assert_redirected(node, topology, live)


def test_drain_finishes_live_connections_and_takes_no_new_ones(
    call: Call, node: Sockops, topology: Topology, live: Connection
) -> None:
    assert call("drain", "sockops") == "sockops drain\n"
    assert_redirected(node, topology, live)
    assert_new_connection(node, topology, accelerated=False)
    assert call("on", "sockops") == "sockops on\n"
    assert_new_connection(node, topology, accelerated=True)


@pytest.mark.parametrize("absolute", [False, True], ids=["as-status-names-it", "absolute"])
def test_one_cgroup_is_switched_off_and_on(
    call: Call, node: Sockops, cgroups: Cgroups, topology: Topology, live: Connection, *, absolute: bool
) -> None:
    path = cgroups.server.relative_path
    named = str(cgroups.server.path) if absolute else path
    call("off", "sockops", "--cgroup", named)
    assert_by_tcp(node, topology, live)
    status = shown(call)
    assert (status["mode"], status["held"]) == ("on", {"mode": None, "cgroups": {path: "off"}})
    assert {name: entry["mode"] for name, entry in status["cgroups"].items()} == {
        cgroups.client.relative_path: "on",
        path: "off",
    }
    call("on", "sockops", "--cgroup", named)
    assert_new_connection(node, topology, accelerated=True)
    assert shown(call)["held"] is None


@pytest.mark.parametrize("one_cgroup", [False, True], ids=["node", "cgroup"])
def test_the_kernel_is_switched_before_the_hold_is_kept(
    call: Call, node: Sockops, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, *, one_cgroup: bool
) -> None:
    path = cgroups.server.relative_path
    modes: list[str] = []
    write = holds.write

    def look_and_write(paths: NodePaths, accelerator: str, hold: Hold) -> None:
        status = node.status()
        modes.append(status["cgroups"][path]["mode"] if one_cgroup else status["mode"])
        write(paths, accelerator, hold)

    monkeypatch.setattr(holds, "write", look_and_write)
    call("drain", "sockops", *(["--cgroup", path] if one_cgroup else []))
    assert modes == ["drain"]
    assert Path(node.paths.holds).exists()


def test_off_works_when_what_is_held_cannot_be_read_and_says_so(
    attempt: Attempt, node: Sockops, topology: Topology, live: Connection
) -> None:
    damaged = Path(node.paths.holds)
    damaged.write_text("{")
    code, output, errors = attempt("off", "sockops")
    assert (code, output) == (1, "sockops off\n")
    assert node.paths.holds in errors
    assert damaged.read_text() == "{"
    damaged.unlink()
    assert_by_tcp(node, topology, live)


def test_metrics_do_not_end_when_what_is_held_cannot_be_read(attempt: Attempt, node: Sockops) -> None:
    Path(node.paths.holds).write_text("{")
    code, output, _ = attempt("metrics")
    assert code == 0
    assert parse(output)[f"{PREFIX}mode"].samples[("mode", "on"),] == 1


def test_what_is_held_outlives_runs_and_restore_until_on(
    call: Call, node: Sockops, cgroups: Cgroups, topology: Topology
) -> None:
    call("drain", "sockops")
    assert not present(node, cgroups.paths, mode="on").changed
    assert call("restore") == "sockops: nothing to restore, all is as wished\n"
    shutil.rmtree(Places.of(node.paths).root)
    call("restore")
    assert shown(call)["mode"] == "drain"
    assert_new_connection(node, topology, accelerated=False)
    call("on", "sockops")
    assert_new_connection(node, topology, accelerated=True)


def test_a_cgroup_that_is_not_opted_in_is_refused_with_those_that_are(
    attempt: Attempt, node: Sockops, cgroups: Cgroups
) -> None:
    code, output, errors = attempt("off", "sockops", "--cgroup", "nobody.slice")
    assert (code, output) == (1, "")
    assert "nobody.slice" in errors
    assert all(path in errors for path in cgroups.paths)
    assert not Path(node.paths.holds).exists()


# ---- restore ----


def test_restore_brings_back_what_was_removed_by_hand(
    call: Call, node: Sockops, topology: Topology, live: Connection
) -> None:
    shutil.rmtree(node.paths.pins)
    assert call("status").startswith("sockops  absent\n")
    live.exchange()
    assert "switch sockops on\n" in call("restore")
    assert shown(call)["mode"] == "on"
    assert_new_connection(node, topology, accelerated=True)
    live.exchange()
    assert call("restore") == "sockops: nothing to restore, all is as wished\n"


def test_restore_leaves_out_cgroups_that_are_not_there_and_says_which(
    call: Call, node: Sockops, cgroups: Cgroups, topology: Topology
) -> None:
    with TestCgroup("short-lived") as gone:
        present(node, [*cgroups.paths, gone.relative_path])
    shutil.rmtree(Places.of(node.paths).root)
    first, second = call("restore"), call("restore")
    assert sorted(shown(call)["cgroups"]) == sorted(cgroups.paths)
    assert_new_connection(node, topology, accelerated=True)
    assert gone.relative_path in first
    assert "all is as wished" not in second


def test_a_damaged_wish_is_not_restored_and_nothing_changes(
    attempt: Attempt, node: Sockops, topology: Topology, live: Connection
) -> None:
    Path(node.paths.desired("sockops")).write_text('{"state": "presnt"}')
    code, output, errors = attempt("restore")
    assert (code, output) == (1, "")
    assert "damaged or edited by hand" in errors
    assert_redirected(node, topology, live)


# ---- looking ----


def test_status_says_what_lost_its_program_and_doing_as_it_says_mends_it(
    call: Call, node: Sockops, topology: Topology
) -> None:
    for link in Path(Places.of(node.paths).links).iterdir():
        link.unlink()
    # The kernel detaches a link that nobody holds a moment later.
    wait_until(
        lambda: call("status").count("NOT ATTACHED: run meshaccel restore") == 2, "status marks both cgroups"
    )
    call("restore")
    assert "NOT ATTACHED" not in call("status")
    assert_new_connection(node, topology, accelerated=True)


def test_status_says_when_pins_are_missing(call: Call, node: Sockops) -> None:
    Path(Places.of(node.paths).map("control")).unlink()
    assert call("status").startswith("sockops  incomplete\n")
    assert call("metrics") == ""
    call("restore")
    assert call("status").startswith("sockops  on\n")


def test_what_was_not_loaded_is_not_switched(attempt: Attempt, node: Sockops) -> None:
    shutil.rmtree(node.paths.pins)
    for mode in Mode:
        code, output, errors = attempt(mode.value, "sockops")
        assert (code, output) == (1, "")
        assert errors.startswith("meshaccel: wanted sockops loaded")
    assert not Path(node.paths.holds).exists()


def test_metrics_count_what_moved_under_the_cgroup_of_its_sender(
    call: Call, node: Sockops, cgroups: Cgroups, live: Connection
) -> None:
    name = f"{PREFIX}redirected_bytes_total"
    before = parse(call("metrics"))
    sent = {end: Counted(node, end.relative_path) for end in (cgroups.client, cgroups.server)}
    moved = live.exchange()
    families = parse(call("metrics"))
    grown = {labels: value - before[name].samples[labels] for labels, value in families[name].samples.items()}
    assert sum(grown.values()) == moved
    for end, counted in sent.items():
        assert grown[("cgroup", end.relative_path),] == counted["redirected_bytes"] > 0
    assert families[f"{PREFIX}connections"].samples == {(): 1}
    assert families[f"{PREFIX}mode"].samples[("mode", "on"),] == 1
