# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Compares our structure declarations with the BTF of a BPF object.

Sources: Documentation/bpf/btf.rst of the kernel for the encoding.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MeshaccelError, NotOurs
from . import libbpf

KIND_STRUCT = 4
KIND_VARIABLE_SECTION = 15
VLEN_MASK = 0xFFFF
KIND_FLAG = 1 << 31
BITS_PER_BYTE = 8
#: struct members carry a bit size above this bit when the kind flag is set.
OFFSET_BITS = 24


class _Type(ctypes.Structure):
    _fields_ = [
        ("name_offset", ctypes.c_uint32),
        ("information", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    ]


class _Member(ctypes.Structure):
    _fields_ = [
        ("name_offset", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    ]


class _SectionVariable(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
    ]


@contextmanager
def object_btf(path: str) -> Iterator[int]:
    """Opens the BTF of an object file; yields libbpf's handle.

    Raises NotOurs when the file is no BPF object or is cut short.
    """
    library = libbpf.library()
    try:
        btf = library.call(f"read the BTF of {path}", "btf__parse", os.fsencode(path), None)
    except libbpf.BpfError as error:
        raise NotOurs(
            wanted=f"a BPF object with BTF at {path}",
            found=str(error),
            remedy="the file is cut short or not a BPF object: install the node release again",
        ) from error
    try:
        yield btf
    finally:
        library.call("free BTF", "btf__free", btf)


def members(btf: int, name: str) -> dict[str, tuple[int, int]] | None:
    """Returns {member: (offset, size)} in bytes of a structure, or None."""
    library = libbpf.library()
    try:
        identifier = library.call(
            f"find struct {name}", "btf__find_by_name_kind", btf, name.encode(), KIND_STRUCT
        )
    except libbpf.BpfError:
        return None
    found: dict[str, tuple[int, int]] = {}
    for member in _records(btf, identifier, _Member):
        size = library.call(f"size of {name}", "btf__resolve_size", btf, member.type)
        offset = member.offset & ((1 << OFFSET_BITS) - 1)
        found[_name(btf, member.name_offset)] = (offset // BITS_PER_BYTE, int(size))
    return found


def section_variables(btf: int, section: str) -> dict[str, tuple[int, int]]:
    """Returns {variable: (offset, size)} in bytes of a data section such as .rodata."""
    library = libbpf.library()
    identifier = library.call(
        f"find section {section}",
        "btf__find_by_name_kind",
        btf,
        section.encode(),
        KIND_VARIABLE_SECTION,
    )
    return {
        _name(btf, _type(btf, record.type).name_offset): (record.offset, record.size)
        for record in _records(btf, identifier, _SectionVariable)
    }


def declared(structure: type[ctypes.Structure]) -> dict[str, tuple[int, int]]:
    """Returns {member: (offset, size)} in bytes of one of our declarations."""
    result: dict[str, tuple[int, int]] = {}
    for field in structure._fields_:
        descriptor = getattr(structure, field[0])
        result[field[0]] = (descriptor.offset, descriptor.size)
    return result


def check(path: str, structures: dict[str, type[ctypes.Structure]]) -> None:
    """Checks that an object file and our declarations agree on every structure.

    Raises NotOurs when the object has none of the name, MeshaccelError when a
    member differs in name, place or size.
    """
    with object_btf(path) as btf:
        for name, structure in structures.items():
            theirs, ours = members(btf, name), declared(structure)
            if theirs is None:
                raise NotOurs(
                    wanted=f"a meshaccel object at {path}",
                    found=f"no struct {name} in its BTF",
                    remedy="this is somebody else's object: install the node release again",
                )
            if theirs != ours:
                differing = sorted(
                    member for member in theirs.keys() | ours.keys() if theirs.get(member) != ours.get(member)
                )
                raise MeshaccelError(
                    wanted=f"struct {name} as this version declares it",
                    found=f"{path} with other {', '.join(differing)}",
                    remedy="package and object are of different versions: install the node release again",
                )


def _type(btf: int, identifier: int) -> _Type:
    address = libbpf.library().call("read BTF", "btf__type_by_id", btf, identifier)
    return _Type.from_address(address)


def _records(btf: int, identifier: int, record: type[Any]) -> list[Any]:
    address = libbpf.library().call("read BTF", "btf__type_by_id", btf, identifier)
    count = _Type.from_address(address).information & VLEN_MASK
    first = address + ctypes.sizeof(_Type)
    return [record.from_address(first + index * ctypes.sizeof(record)) for index in range(count)]


def _name(btf: int, offset: int) -> str:
    return libbpf.library().text("btf__name_by_offset", btf, offset)
