"""The module bpf_map on the running kernel: entries written, removed, and put back."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.bpf.declared import converge
from meshaccel.bpf.entries import PinnedEntries
from meshaccel.errors import ApplyFailed
from tests.kernel.bpf_objects import PIN, Node, own_node, wish
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.connections import open_connection
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.model import Action

MODULE = "bpf_map"
PORTS = f"{PIN}_maps/skipped_ports"
COUNTS = f"{PIN}_maps/connections"
PER_CPU = f"{PIN}_maps/events"
#: Of the map of ports: its size in the object, and what a hash map of 16 bits can hold.
ROOM = 16


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Node]:
    """A node with the program that skips ports, attached to the client's cgroup."""
    with own_node() as made:
        made.done("bpf_program", **wish(1, cgroups.client))
        yield made


@pytest.fixture(autouse=True)
def _emptied(node: Node) -> None:
    """Begin with an empty map of ports."""
    node.done(MODULE, pin=PORTS, purge=True)


def dump(node: Node, name: str = PORTS) -> dict[int, int]:
    """Return the entries as bpftool reads them, which knows nothing of our reading."""
    rows = json.loads(run(["bpftool", "-j", "map", "dump", "pinned", str(node.pin(name))]))
    return {number(row["key"]): number(row["value"]) for row in rows}


def number(words: list[str]) -> int:
    """Return the integer that bytes in hexadecimal digits are on this machine."""
    return int.from_bytes(bytes(int(word, 16) for word in words), sys.byteorder)


def entries(**values: int) -> list[dict[str, int]]:
    """Return entries, from keywords such as port80=1."""
    return [{"key": int(name[4:]), "value": value} for name, value in values.items()]


def test_entries_are_written_and_a_second_run_changes_nothing(node: Node) -> None:
    wished = [{"key": 80, "value": 1}, {"key": (8080).to_bytes(2, sys.byteorder).hex(" "), "value": "ff" * 4}]

    first = node.done(MODULE, pin=PORTS, entries=wished)
    second = node.done(MODULE, pin=PORTS, entries=wished)

    assert dump(node) == {80: 1, 8080: 0xFFFFFFFF}
    assert (first["changed"], len(first["actions"])) == (True, 2)
    assert (second["changed"], second["actions"]) == (False, [])
    assert second["diff"]["before"] == second["diff"]["after"] == first["diff"]["after"]


def test_check_mode_tells_what_a_run_does_and_writes_nothing(node: Node) -> None:
    node.done(MODULE, pin=PORTS, entries=entries(port80=1, port81=1))
    wished: dict[str, Any] = {"pin": PORTS, "entries": entries(port80=2, port90=3), "purge": True}

    predicted = node.done(MODULE, check_mode=True, **wished)
    assert dump(node) == {80: 1, 81: 1}
    done = node.done(MODULE, **wished)

    assert dump(node) == {80: 2, 90: 3}
    assert (predicted["actions"], predicted["diff"]) == (done["actions"], done["diff"])


def test_other_entries_stay_unless_they_are_purged(node: Node) -> None:
    node.done(MODULE, pin=PORTS, entries=entries(port80=1, port81=1, port82=1))
    node.done(MODULE, pin=PORTS, entries=entries(port90=9))
    assert dump(node) == {80: 1, 81: 1, 82: 1, 90: 9}

    node.done(MODULE, pin=PORTS, state="absent", entries=[{"key": 80}, {"key": 7}])
    assert dump(node) == {81: 1, 82: 1, 90: 9}

    node.done(MODULE, pin=PORTS, entries=entries(port82=1), purge=True)
    assert dump(node) == {82: 1}


def test_a_full_map_takes_new_entries_in_the_place_of_purged_ones(node: Node) -> None:
    node.done(MODULE, pin=PORTS, entries=[{"key": port, "value": 1} for port in range(ROOM)])
    node.done(
        MODULE, pin=PORTS, entries=[{"key": 100 + port, "value": 2} for port in range(ROOM)], purge=True
    )
    assert dump(node) == {100 + port: 2 for port in range(ROOM)}


def test_a_program_reads_what_was_written(node: Node, cgroups: Cgroups) -> None:
    """The program does not count connections from a port that the map names."""
    with (
        one_pod(cgroups) as topology,
        topology.server.listen("127.0.0.1") as listener,
        topology.client.make() as client,
    ):
        client.bind(("127.0.0.1", 0))
        node.done(MODULE, pin=PORTS, entries=[{"key": client.getsockname()[1], "value": 1}])
        before = node.counted()[0]
        client.connect(listener.getsockname())
        assert node.counted()[0] == before
        with open_connection(topology.client, listener, "127.0.0.1"):
            assert node.counted()[0] == before + 1


def test_an_array_is_written_and_never_shrinks(node: Node) -> None:
    node.done(MODULE, pin=COUNTS, entries=[{"key": 1, "value": 1 << 40}])
    assert dump(node, COUNTS)[1] == 1 << 40
    node.done(MODULE, pin=COUNTS, entries=[{"key": 1, "value": 0}])
    assert dump(node, COUNTS)[1] == 0


def test_a_map_that_overflows_is_put_back_as_it_was(node: Node) -> None:
    node.done(MODULE, pin=PORTS, entries=[{"key": port, "value": 1} for port in range(ROOM)])
    before = dump(node)

    result = node.run(MODULE, pin=PORTS, entries=entries(port3=9, port500=9))

    assert f"full with {ROOM} entries" in result["found"]
    assert "was undone" in result["remedy"]
    assert dump(node) == before


def test_a_failure_at_any_step_puts_every_entry_back(node: Node) -> None:
    node.done(MODULE, pin=PORTS, entries=entries(port80=1, port81=1, port82=1))
    before = dump(node)
    raw = {"state": "present", "pin": PORTS, "entries": entries(port80=2, port90=3), "purge": True}
    declared = PinnedEntries.parse(raw, node.paths)
    steps = len(declared.make_plan(declared.observe()))
    assert steps == 4

    for failing in range(steps):
        passed: list[Action] = []

        def fail_there(action: Action, at: int = failing, passed: list[Action] = passed) -> None:
            passed.append(action)
            if len(passed) > at:
                raise OSError("injected")

        with pytest.raises(ApplyFailed, match="injected") as raised:
            converge(declared, node.paths, before_action=fail_there)
        assert raised.value.undo_errors == ()
        assert dump(node) == before


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"pin": "count_maps/skipped_port"}, "count_maps/skipped_ports"),
        ({"pin": PIN}, "a program there"),
        ({"pin": f"{PIN}_maps"}, "a directory there"),
        ({"pin": "../../etc"}, "outside"),
        ({"pin": PER_CPU, "entries": [{"key": 0, "value": 1}]}, "per-CPU"),
        ({"pin": COUNTS, "entries": [{"key": 2, "value": 1}]}, "2"),
        ({"pin": COUNTS, "purge": True}, "an array"),
        ({"pin": COUNTS, "state": "absent", "entries": [{"key": 0}]}, "an array"),
        ({"entries": [{"key": 65536, "value": 1}]}, "65536"),
        ({"entries": [{"key": "50", "value": 1}]}, "'50'"),
        ({"entries": [{"key": 80, "value": "00 00 00 0"}]}, "'00 00 00 0'"),
        ({"entries": [{"key": 80}]}, "None"),
        ({"entries": [{"key": 80, "value": True}]}, "True"),
        ({"entries": [{"key": 80, "value": "high"}]}, "'high'"),
        ({"entries": [{"key": 80, "value": 1}, {"key": 80, "value": 2}]}, "second time"),
        ({"entries": [{"key": port, "value": 1} for port in range(ROOM + 1)]}, str(ROOM + 1)),
        ({"state": "absent", "purge": True}, "state absent"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_wrong_wish_is_refused_with_a_reason_and_nothing_changed(
    node: Node, parameters: dict[str, Any], found: str
) -> None:
    before = dump(node), dump(node, COUNTS)
    result = node.run(MODULE, **{"pin": PORTS, **parameters})
    assert result["failed"] is True
    assert found in result["found"]
    assert result["wanted"]
    assert result["remedy"]
    assert (dump(node), dump(node, COUNTS)) == before


def test_a_symlink_is_not_followed(node: Node) -> None:
    link = node.pin("elsewhere")
    link.symlink_to(node.pin(PORTS))
    try:
        result = node.run(MODULE, pin="elsewhere", entries=entries(port80=1))
    finally:
        link.unlink()
    assert "is a symlink" in result["found"]
    assert dump(node) == {}
