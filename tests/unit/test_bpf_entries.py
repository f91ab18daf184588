"""Entries of a map as an operator writes them, and the plan that leads to them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.bpf.attach import MapInformation
from meshaccel.bpf.entries import (
    ARRAY,
    HASH,
    LRU_HASH,
    PER_CPU_KINDS,
    Desired,
    Observed,
    PinnedEntries,
    check_kind,
    encode,
    make_plan,
    parse,
    wished_entries,
)
from meshaccel.errors import ApplyFailed, InvalidInput, MeshaccelError, Unsupported
from meshaccel.paths import NodePaths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.model import Action, Json

PATHS = NodePaths()
ROOM = 6
#: One-byte keys and values, so that what is generated meets often.
MAP = MapInformation(
    identifier=1, maximum_entries=ROOM, key_size=1, value_size=1, kind=HASH, flags=0, name="map"
)
ARRAY_MAP = replace(MAP, kind=ARRAY)
RAW: dict[str, Any] = {"pin": "map", "state": "present", "entries": [], "purge": False}

BYTES = st.integers(0, ROOM - 1).map(lambda number: bytes([number]))
CONTENTS = st.dictionaries(BYTES, BYTES, max_size=ROOM)


@dataclass
class SimulatedMap:
    """A hash map without a kernel."""

    entries: dict[bytes, bytes]

    def observe(self, desired: Desired) -> Observed:
        wished = wished_entries(desired, MAP)
        seen = {key: value for key, value in self.entries.items() if desired.purge or key in wished}
        return Observed(MAP, seen)

    def write(self, arguments: Mapping[str, Json]) -> None:
        key = bytes.fromhex(arguments["key"])
        if key not in self.entries and len(self.entries) >= ROOM:
            raise OSError("full")
        self.entries[key] = bytes.fromhex(arguments["value"])

    def delete(self, arguments: Mapping[str, Json]) -> None:
        self.entries.pop(bytes.fromhex(arguments["key"]), None)

    def converge(self, desired: Desired, failing: int | None = None) -> engine.Outcome[Observed]:
        passed: list[Action] = []

        def fail_there(action: Action) -> None:
            passed.append(action)
            if failing is not None and len(passed) > failing:
                raise OSError("injected")

        return engine.converge(
            lambda: self.observe(desired),
            lambda seen: make_plan(desired, seen),
            {"bpf_map.write": self.write, "bpf_map.delete": self.delete},
            before_action=fail_there,
        )


@st.composite
def wishes(draw: st.DrawFn) -> Desired:
    """Return wishes that a map of ROOM entries can fulfil."""
    present = draw(st.booleans())
    contents = draw(CONTENTS)
    entries = tuple((key.hex(), value.hex() if present else None) for key, value in contents.items())
    return Desired(present, "map", entries, purge=present and draw(st.booleans()))


# ---- properties of the plan ----


@given(CONTENTS, wishes())
def test_what_was_wished_is_there_and_nothing_is_left_to_do(
    contents: dict[bytes, bytes], desired: Desired
) -> None:
    node = SimulatedMap(dict(contents))
    wished = wished_entries(desired, MAP)

    node.converge(desired)

    others = {} if desired.purge else {key: value for key, value in contents.items() if key not in wished}
    assert node.entries == ({**others, **wished} if desired.present else others)
    assert make_plan(desired, node.observe(desired)) == ()


@given(CONTENTS, wishes(), st.integers(0, 2 * ROOM))
def test_a_failure_at_any_step_restores_every_entry(
    contents: dict[bytes, bytes], desired: Desired, failing: int
) -> None:
    node = SimulatedMap(dict(contents))
    steps = len(make_plan(desired, node.observe(desired)))
    if failing < steps:
        with pytest.raises(ApplyFailed) as raised:
            node.converge(desired, failing)
        assert raised.value.undo_errors == ()
        assert node.entries == contents
    else:
        node.converge(desired, failing)


@given(CONTENTS, wishes())
def test_the_diff_shows_exactly_what_the_plan_does(contents: dict[bytes, bytes], desired: Desired) -> None:
    node = SimulatedMap(dict(contents))
    declared = PinnedEntries(desired, PATHS)
    before = node.observe(desired)
    promised = declared.describe(before)

    node.converge(desired)

    assert declared.describe_observed(node.observe(desired)) == promised
    assert (declared.describe_observed(before) == promised) == (make_plan(desired, before) == ())


def test_deletions_come_first_so_that_a_full_map_can_be_exchanged() -> None:
    node = SimulatedMap({bytes([key]): b"\1" for key in range(ROOM)})
    entries = tuple((key, 2) for key in range(ROOM, 2 * ROOM))
    node.converge(Desired(True, "map", entries, purge=True))
    assert node.entries == {bytes([key]): b"\2" for key in range(ROOM, 2 * ROOM)}


def test_the_words_of_an_action_are_bytes_as_bpftool_shows_them() -> None:
    information = replace(MAP, key_size=2)
    (action,) = make_plan(Desired(True, "ports", (("1f 90", 7),), purge=False), Observed(information))
    assert action.summary == "write 1f 90 = 07 to ports"
    assert [step.summary for step in action.undo] == ["delete 1f 90 from ports"]


# ---- keys and values ----


@given(
    st.integers(1, 16).flatmap(lambda size: st.tuples(st.just(size), st.binary(min_size=size, max_size=size)))
)
def test_bytes_are_read_from_every_way_to_write_them(sized: tuple[int, bytes]) -> None:
    size, content = sized
    assert encode(content.hex(), size, "key") == content
    assert encode(content.hex(" ").upper(), size, "key") == content
    assert encode(int.from_bytes(content, sys.byteorder), size, "key") == content
    assert encode(int.from_bytes(content, sys.byteorder, signed=True), size, "key") == content


@pytest.mark.parametrize(
    ("what", "size", "wanted"),
    [
        (256, 1, "a key from -128 to 255"),
        (-129, 1, "a key from -128 to 255"),
        (1 << 32, 4, "a key from -2147483648 to 4294967295"),
        ("0a", 2, "a key of 2 bytes, 4 hexadecimal digits"),
        ("0a0b0c", 2, "a key of 2 bytes, 4 hexadecimal digits"),
        ("0a0", 2, "a key of 2 bytes, 4 hexadecimal digits"),
    ],
)
def test_what_does_not_fit_the_map_is_refused(what: int | str, size: int, wanted: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        encode(what, size, "key")
    assert raised.value.wanted == wanted
    assert str(what) in raised.value.found


# ---- options ----


def test_options_become_a_wish() -> None:
    entries = [{"key": 1, "value": "0a"}, {"key": "0b", "value": -1}]
    assert parse({**RAW, "entries": entries, "purge": True}, PATHS) == Desired(
        True, "map", ((1, "0a"), ("0b", -1)), purge=True
    )
    absent = {**RAW, "state": "absent", "entries": [{"key": 1, "value": "ignored"}, {"key": 2}]}
    assert parse(absent, PATHS) == Desired(False, "map", ((1, None), (2, None)), purge=False)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"pin": "../map"}, "'../map', which is outside"),
        ({"state": "absent", "purge": True}, "purge with state absent"),
        ({"entries": [{"value": 1}]}, "None in {'value': 1}"),
        ({"entries": [{"key": 1}]}, "None in {'key': 1}"),
        ({"entries": [{"key": 1, "value": 2, "vlaue": 3}]}, "vlaue"),
        ({"entries": [{"key": True, "value": 1}]}, "True"),
        ({"entries": [{"key": 1.5, "value": 1}]}, "1.5"),
        ({"entries": [{"key": "", "value": 1}]}, "''"),
        ({"entries": [{"key": "0x10", "value": 1}]}, "'0x10'"),
        ({"entries": [{"key": [1], "value": 1}]}, "[1]"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse({**RAW, **options}, PATHS)
    assert found in raised.value.found


# ---- the map ----


@pytest.mark.parametrize("kind", [HASH, ARRAY, LRU_HASH])
def test_maps_of_plain_bytes_are_taken(kind: int) -> None:
    check_kind(Desired(True, "map", (), purge=False), replace(MAP, kind=kind))


@pytest.mark.parametrize("kind", sorted(PER_CPU_KINDS))
def test_a_per_cpu_map_is_refused_for_writing(kind: int) -> None:
    with pytest.raises(Unsupported, match="found a per-CPU map"):
        check_kind(Desired(True, "map", (), purge=False), replace(MAP, kind=kind))


@pytest.mark.parametrize("kind", [3, 11, 15, 18, 27])
def test_a_map_of_something_else_is_refused(kind: int) -> None:
    with pytest.raises(Unsupported, match=f"a map of type {kind}"):
        check_kind(Desired(True, "map", (), purge=False), replace(MAP, kind=kind))


@pytest.mark.parametrize(
    "desired", [Desired(False, "map", ((1, None),), purge=False), Desired(True, "map", (), purge=True)]
)
def test_entries_of_an_array_cannot_be_removed(desired: Desired) -> None:
    with pytest.raises(InvalidInput, match="an array, whose entries are always there"):
        check_kind(desired, ARRAY_MAP)
    check_kind(desired, MAP)


@pytest.mark.parametrize(
    ("entries", "information", "found"),
    [
        (((1, 1), ("01", 2)), MAP, "'01' a second time"),
        (((255, 1), (-1, 2)), MAP, "-1 a second time"),
        (((ROOM, 1),), ARRAY_MAP, str(ROOM)),
        (tuple((key, 1) for key in range(ROOM + 1)), MAP, str(ROOM + 1)),
    ],
    ids=["the same bytes", "the same integer", "beyond the array", "too many"],
)
def test_a_wish_that_does_not_fit_the_map_is_refused(
    entries: tuple[tuple[int | str, int], ...], information: MapInformation, found: str
) -> None:
    with pytest.raises(MeshaccelError) as raised:
        wished_entries(Desired(True, "map", entries, purge=False), information)
    assert raised.value.found == found


def test_the_last_index_of_an_array_is_taken() -> None:
    wished = wished_entries(Desired(True, "map", ((ROOM - 1, 1),), purge=False), ARRAY_MAP)
    assert wished == {bytes([ROOM - 1]): b"\1"}
