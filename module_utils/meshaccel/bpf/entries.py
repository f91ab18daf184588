# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The declared entries of a map pinned below our directory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Union

from ..engine import Handler
from ..errors import InvalidInput, MeshaccelError, Unsupported
from ..model import Action, Json, Plan
from ..paths import NodePaths
from . import attach, libbpf, maps, ownership
from .ownership import Kind

#: Of enum bpf_map_type, include/uapi/linux/bpf.h.
HASH = 1
ARRAY = 2
LRU_HASH = 9
#: Their entries are plain bytes that a lookup finds by exactly their key.
PLAIN_KINDS = frozenset({HASH, ARRAY, LRU_HASH})
#: PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE.
PER_CPU_KINDS = frozenset({5, 6, 10, 21})
BITS_PER_BYTE = 8
HEXADECIMAL = "0123456789abcdefABCDEF "

#: A key or value as the operator writes it: an integer, or bytes in hexadecimal digits.
Words = Union[int, str]
Bytes = ctypes.Array[ctypes.c_uint8]
BytesMap = maps.Map[Bytes, Bytes]


@dataclass(frozen=True)
class Desired:
    """The wish, not yet in the bytes of the map. A value is None where it does not matter."""

    present: bool
    pin: str
    entries: tuple[tuple[Words, Words | None], ...]
    purge: bool


@dataclass(frozen=True)
class Observed:
    """The map, and those of its entries that the wish is about.

    ``entries`` has the wished keys that are there, with purge every key.
    """

    information: attach.MapInformation
    entries: Mapping[bytes, bytes] = field(default_factory=dict)


# ---- the wish ----


def parse(raw: Mapping[str, Json], paths: NodePaths) -> Desired:
    """Parses the module's options; raises InvalidInput for the first thing that is wrong."""
    present, purge = raw["state"] == "present", bool(raw["purge"])
    if purge and not present:
        raise InvalidInput(
            wanted="purge with state present",
            found="purge with state absent",
            remedy="to empty the map, give state present, purge and no entries",
        )
    entries = tuple(parse_entry(entry, with_value=present) for entry in raw["entries"] or [])
    return Desired(present, ownership.pin_name(paths, str(raw["pin"])), entries, purge)


def parse_entry(entry: Mapping[str, Json], *, with_value: bool) -> tuple[Words, Words | None]:
    """Parses one entry; where with_value is False the value is ignored."""
    unknown = sorted(set(entry) - {"key", "value"})
    if unknown:
        raise InvalidInput(
            wanted="key and value in an entry", found=", ".join(unknown), remedy="check the spelling"
        )
    return words(entry, "key"), words(entry, "value") if with_value else None


def words(entry: Mapping[str, Json], name: str) -> Words:
    """Returns a key or value; raises InvalidInput unless it is an integer or hexadecimal digits."""
    found = entry.get(name)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    if isinstance(found, str) and found.strip() and not found.strip(HEXADECIMAL):
        return found
    raise InvalidInput(
        wanted=f"the {name} of an entry: an integer, or a string of hexadecimal digits such as '0a 0b'",
        found=f"{found!r} in {dict(entry)!r}",
        remedy="correct the entry",
    )


def encode(what: Words, size: int, name: str) -> bytes:
    """Returns a key or value in the map's bytes; integers in the byte order of this machine.

    Raises InvalidInput when it does not fit.
    """
    if isinstance(what, int):
        with contextlib.suppress(OverflowError):
            return what.to_bytes(size, sys.byteorder, signed=what < 0)
        bits = size * BITS_PER_BYTE
        raise misfit(f"a {name} from {-(1 << (bits - 1))} to {(1 << bits) - 1}", str(what))
    with contextlib.suppress(ValueError):
        found = bytes.fromhex(what)
        if len(found) == size:
            return found
    raise misfit(f"a {name} of {size} bytes, {size * 2} hexadecimal digits", repr(what))


def misfit(wanted: str, found: str) -> InvalidInput:
    """Builds the error for a key or value that the map cannot hold."""
    return InvalidInput(wanted=wanted, found=found, remedy="write it in the map's size, or as an integer")


# ---- observation ----


def observe(desired: Desired, paths: NodePaths) -> Observed:
    """Reads the map.

    Raises InvalidInput when it is not there or the wish does not fit it, NotOurs
    when something else is pinned there, Unsupported for a type that is not plain.
    """
    with open_map(desired, paths) as found:
        information = attach.map_information(found.descriptor)
        check_kind(desired, information)
        wished = wished_entries(desired, information)
        keys = list(wished)
        if desired.purge:
            keys += map(bytes, found.keys())
        values = {key: found.read(to_bytes(key)) for key in keys}
    return Observed(information, {key: bytes(value) for key, value in values.items() if value is not None})


@contextmanager
def open_map(desired: Desired, paths: NodePaths) -> Iterator[BytesMap]:
    """Opens the pinned map with keys and values as plain bytes."""
    descriptor = ownership.open_ours(paths, os.path.join(paths.pins, desired.pin), Kind.MAP)
    if descriptor is None:
        raise ownership.missing_pin(paths, desired.pin, Kind.MAP)
    information = attach.map_information(descriptor)
    key, value = ctypes.c_uint8 * information.key_size, ctypes.c_uint8 * information.value_size
    with maps.Map(descriptor, key, value) as found:
        yield found


def to_bytes(content: bytes) -> Bytes:
    """Returns bytes as the ctypes array that a map call takes."""
    return (ctypes.c_uint8 * len(content)).from_buffer_copy(content)


def check_kind(desired: Desired, information: attach.MapInformation) -> None:
    """Raises Unsupported or InvalidInput when this type of map cannot be as wished."""
    what = f"entries of {desired.pin}"
    if information.kind in PER_CPU_KINDS:
        raise Unsupported(
            wanted=f"{what} to write",
            found="a per-CPU map, which has a value of each CPU for a key",
            remedy="only programs write those; read it with bpftool map dump",
        )
    if information.kind not in PLAIN_KINDS:
        raise Unsupported(
            wanted=f"{what} as plain bytes",
            found=f"a map of type {information.kind}",
            remedy="hash (1), array (2) and LRU hash (9) maps can be declared",
        )
    if information.kind == ARRAY and (desired.purge or not desired.present):
        raise InvalidInput(
            wanted=f"{what} removed",
            found="an array, whose entries are always there",
            remedy="declare the value that they should have, such as 0",
        )


def wished_entries(desired: Desired, information: attach.MapInformation) -> dict[bytes, bytes | None]:
    """Returns the wish in the map's bytes; raises InvalidInput when it does not fit."""
    found: dict[bytes, bytes | None] = {}
    for key, value in desired.entries:
        key_bytes = encode(key, information.key_size, "key")
        if key_bytes in found:
            raise InvalidInput(
                wanted="each key once", found=f"{key!r} a second time", remedy="remove one of the entries"
            )
        if information.kind == ARRAY:
            check_index(key_bytes, information)
        found[key_bytes] = None if value is None else encode(value, information.value_size, "value")
    if len(found) > information.maximum_entries:
        raise InvalidInput(
            wanted=f"at most {information.maximum_entries} entries, the size of {desired.pin}",
            found=str(len(found)),
            remedy="load the program with a larger map (maximum_entries of bpf_program)",
        )
    return found


def check_index(key: bytes, information: attach.MapInformation) -> None:
    """Raises InvalidInput for an index beyond the end of an array."""
    index = int.from_bytes(key, sys.byteorder)
    if index >= information.maximum_entries:
        raise InvalidInput(
            wanted=f"an index from 0 to {information.maximum_entries - 1}",
            found=str(index),
            remedy="correct the key",
        )


# ---- the plan ----


def make_plan(desired: Desired, observed: Observed) -> Plan:
    """Returns the writes and deletions that are missing; deletions first, they make room. Pure."""
    wished = wished_entries(desired, observed.information)
    deletions: list[Action] = []
    writes: list[Action] = []
    for key, value in observed.entries.items():
        if (desired.purge and key not in wished) or not desired.present:
            deletions.append(delete_action(desired.pin, key, (write_action(desired.pin, key, value),)))
    for key, wished_value in wished.items():
        before = observed.entries.get(key)
        if wished_value is None or before == wished_value:
            continue
        undo = delete_action(desired.pin, key) if before is None else write_action(desired.pin, key, before)
        writes.append(write_action(desired.pin, key, wished_value, (undo,)))
    return (*deletions, *writes)


def write_action(pin: str, key: bytes, value: bytes, undo: Plan = ()) -> Action:
    """Builds the write of one entry."""
    arguments = {"key": key.hex(), "value": value.hex()}
    summary = f"write {spaced(key)} = {spaced(value)} to {pin}"
    return Action("bpf_map.write", summary, arguments, undo)


def delete_action(pin: str, key: bytes, undo: Plan = ()) -> Action:
    """Builds the deletion of one entry."""
    return Action("bpf_map.delete", f"delete {spaced(key)} from {pin}", {"key": key.hex()}, undo)


def spaced(content: bytes) -> str:
    """Returns bytes as hexadecimal digits, the way bpftool and the options write them."""
    return content.hex(" ")


def describe_entries(entries: Mapping[bytes, bytes]) -> dict[str, Json]:
    """Returns entries for the diff."""
    return {spaced(key): spaced(value) for key, value in entries.items()}


# ---- on the node ----


def write(found: BytesMap, arguments: Mapping[str, Json]) -> None:
    """Writes one entry; raises MeshaccelError when the map is full."""
    key, value = bytes.fromhex(arguments["key"]), bytes.fromhex(arguments["value"])
    try:
        found.write(to_bytes(key), to_bytes(value))
    except libbpf.BpfError as error:
        if error.errno != errno.E2BIG:
            raise
        room = attach.map_information(found.descriptor).maximum_entries
        raise MeshaccelError(
            wanted=f"room for the entry {spaced(key)}",
            found=f"a map that is full with {room} entries",
            remedy="purge entries, or load the program with a larger map (maximum_entries of bpf_program)",
        ) from error


@dataclass(frozen=True)
class PinnedEntries:
    """Declared entries on one node, for declared.converge."""

    desired: Desired
    paths: NodePaths

    @classmethod
    def parse(cls, raw: Mapping[str, Json], paths: NodePaths) -> PinnedEntries:
        """Parses the options of the module bpf_map; raises InvalidInput."""
        return cls(parse(raw, paths), paths)

    @property
    def purpose(self) -> str:
        """Who holds the node's lock meanwhile."""
        return f"bpf_map {self.desired.pin}"

    def observe(self) -> Observed:
        """Reads the map."""
        return observe(self.desired, self.paths)

    def make_plan(self, observed: Observed) -> Plan:
        """Returns the actions that are missing."""
        return make_plan(self.desired, observed)

    @contextmanager
    def handlers(self) -> Iterator[Mapping[str, Handler]]:
        """Opens the map once for all writes of a run."""
        with open_map(self.desired, self.paths) as found:
            yield {
                "bpf_map.write": lambda arguments: write(found, arguments),
                "bpf_map.delete": lambda arguments: found.delete(to_bytes(bytes.fromhex(arguments["key"]))),
            }

    def describe_observed(self, observed: Observed) -> dict[str, Json]:
        """Returns the observed entries, for the diff."""
        return describe_entries(observed.entries)

    def describe(self, observed: Observed) -> dict[str, Json]:
        """Returns the entries that the plan leads to."""
        wished = wished_entries(self.desired, observed.information)
        kept = {} if self.desired.purge else dict(observed.entries)
        if not self.desired.present:
            return {}
        kept.update({key: value for key, value in wished.items() if value is not None})
        return describe_entries(kept)
