# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""BPF maps: typed access to keys and values of fixed layout."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ..errors import NotOurs
from . import attach, libbpf

#: A ctypes structure or integer of the size that the kernel has.
Key = TypeVar("Key")
Value = TypeVar("Value")

BATCH_ENTRIES = 1024
#: BPF_ANY and BPF_NOEXIST, include/uapi/linux/bpf.h.
ANY = 0
ONLY_NEW = 1
#: A per-CPU value takes whole eight-byte words for each CPU.
PER_CPU_ALIGNMENT = 8


class Map(Generic[Key, Value]):
    """An open map. Use as a context manager, or close it."""

    def __init__(self, descriptor: int, key: type[Key], value: type[Value]) -> None:
        self.descriptor = descriptor
        # ctypes' array and buffer operations are beyond what mypy can follow.
        self._key: Any = key
        self._value: Any = value

    @classmethod
    def pinned(cls, path: str, key: type[Key], value: type[Value]) -> Map[Key, Value]:
        """Opens a pinned map; raises BpfError (ENOENT when there is no pin).

        Raises NotOurs for one with larger keys or values, of another release or somebody
        else's: the kernel would write beyond ours.
        """
        descriptor = open_pin(path)
        try:
            require_room(path, attach.map_information(descriptor), key, value)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, key, value)

    def __enter__(self) -> Map[Key, Value]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptor; the map lives on through its pin."""
        os.close(self.descriptor)

    def read(self, key: Key) -> Value | None:
        """Returns a copy of the value, or None when there is no such key."""
        value: Value = self._value()
        return value if self._lookup(key, value) else None

    def read_per_cpu(self, key: Key) -> list[Value]:
        """Returns one value per possible CPU; empty when there is no such key."""
        step = -(-ctypes.sizeof(self._value) // PER_CPU_ALIGNMENT) * PER_CPU_ALIGNMENT
        count = libbpf.library().possible_cpus()
        buffer = ctypes.create_string_buffer(step * count)
        if not self._lookup(key, buffer):
            return []
        return [self._value.from_buffer_copy(buffer, step * cpu) for cpu in range(count)]

    def write(self, key: Key, value: Value) -> None:
        """Creates or replaces an entry; raises BpfError (E2BIG when full)."""
        self._update(key, value, ANY)

    def add(self, key: Key, value: Value) -> None:
        """Creates an entry; one that is there stays as it is. Raises BpfError (E2BIG when full)."""
        try:
            self._update(key, value, ONLY_NEW)
        except libbpf.BpfError as error:
            if error.errno != errno.EEXIST:
                raise

    def delete(self, key: Key) -> None:
        """Deletes an entry; nothing there is fine."""
        try:
            libbpf.library().call("delete from a map", "bpf_map_delete_elem", self.descriptor, reference(key))
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def keys(self) -> Iterator[Key]:
        """Yields the keys there are; entries that come or go meanwhile may be missed."""
        previous: Key | None = None
        while True:
            key: Key = self._key()
            try:
                libbpf.library().call(
                    "walk a map",
                    "bpf_map_get_next_key",
                    self.descriptor,
                    reference(previous) if previous is not None else None,
                    reference(key),
                )
            except libbpf.BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield key
            previous = key

    def items(self) -> list[tuple[Key, Value]]:
        """Returns all entries, in batches (kernel 5.6 on; not for per-CPU maps)."""
        entries: list[tuple[Key, Value]] = []
        key_size, value_size = ctypes.sizeof(self._key), ctypes.sizeof(self._value)
        keys = ctypes.create_string_buffer(key_size * BATCH_ENTRIES)
        values = ctypes.create_string_buffer(value_size * BATCH_ENTRIES)
        # A hash map's cursor is a bucket number; an array's is a key.
        cursor = ctypes.create_string_buffer(max(8, key_size))
        started = False
        while True:
            count = ctypes.c_uint32(BATCH_ENTRIES)
            last = False
            try:
                libbpf.library().call(
                    "read a map in batches",
                    "bpf_map_lookup_batch",
                    self.descriptor,
                    cursor if started else None,
                    cursor,
                    keys,
                    values,
                    ctypes.byref(count),
                    None,
                )
            except libbpf.BpfError as error:
                if error.errno != errno.ENOENT:
                    raise
                last = True
            entries.extend(
                (
                    self._key.from_buffer_copy(keys, index * key_size),
                    self._value.from_buffer_copy(values, index * value_size),
                )
                for index in range(count.value)
            )
            if last:
                return entries
            started = True

    def _update(self, key: Key, value: Value, flags: int) -> None:
        libbpf.library().call(
            "write to a map",
            "bpf_map_update_elem",
            self.descriptor,
            reference(key),
            reference(value),
            flags,
        )

    def _lookup(self, key: Key, buffer: object) -> bool:
        try:
            libbpf.library().call(
                "read a map",
                "bpf_map_lookup_elem",
                self.descriptor,
                reference(key),
                reference(buffer),
            )
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True


def require_room(path: str, found: attach.MapInformation, key: type[Key], value: type[Value]) -> None:
    """Raises NotOurs when the kernel's keys or values are larger than these types of ctypes."""
    sizes = ctypes.sizeof(key), ctypes.sizeof(value)  # type: ignore[arg-type]
    if found.key_size > sizes[0] or found.value_size > sizes[1]:
        raise NotOurs(
            wanted=f"a map with keys of {sizes[0]} bytes and values of {sizes[1]} at {path}",
            found=f"{found.key_size} and {found.value_size} bytes: of another release, or somebody else's",
            remedy="run the playbook, which loads this release's anew",
        )


def reference(data: object) -> object:
    """Returns a pointer to a ctypes object, for a call."""
    # The type that all of ctypes have in common has no public name.
    pointer: object = ctypes.byref(data)  # type: ignore[arg-type]
    return pointer


def open_pin(path: str) -> int:
    """Opens whatever is pinned at a path; raises BpfError (ENOENT: nothing is)."""
    return int(libbpf.library().call(f"open the pin {path}", "bpf_obj_get", os.fsencode(path)))


def pin(descriptor: int, path: str) -> None:
    """Pins a map, program or link; raises BpfError (EEXIST: the name is taken)."""
    libbpf.library().call(f"pin {path}", "bpf_obj_pin", descriptor, os.fsencode(path))
