# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Attaching programs: to cgroups, to a socket map, as an iterator."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import NotOurs
from . import libbpf

#: enum bpf_attach_type, include/uapi/linux/bpf.h.
CGROUP_INET_INGRESS = 0
CGROUP_INET_EGRESS = 1
CGROUP_SOCK_OPS = 3
SK_SKB_STREAM_VERDICT = 5
SK_MSG_VERDICT = 7
TRACE_ITERATOR = 28
QUERIED_PROGRAMS = 64
ITERATOR_CHUNK = 65536


class _ProgramInformation(ctypes.Structure):
    """The head of struct bpf_prog_info, up to the name."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_length", ctypes.c_uint32),
        ("translated_length", ctypes.c_uint32),
        ("jited", ctypes.c_uint64),
        ("translated", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by", ctypes.c_uint32),
        ("map_count", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    ]


class _MapInformation(ctypes.Structure):
    """The head of struct bpf_map_info, up to the name."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("maximum_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    ]


class _LinkInformation(ctypes.Structure):
    """struct bpf_link_info with the cgroup member of its union."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),
        ("attach_type", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 44),
    ]


class _IteratorTarget(ctypes.Structure):
    """union bpf_iter_link_info: the map to walk."""

    _fields_ = [("map_descriptor", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 12)]


class _LinkOptions(ctypes.Structure):
    """The head of struct bpf_link_create_opts, up to iter_info_len."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("iterator_target", ctypes.c_void_p),
        ("iterator_target_length", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class ProgramInformation:
    """What the kernel says of a program; ``kind`` is of enum bpf_prog_type.

    ``tag`` is the kernel's hash of the instructions, the same for each load of the
    same ones: maps, and so constants, are not part of it (bpf_prog_calc_tag).
    """

    identifier: int
    kind: int
    tag: str
    map_ids: tuple[int, ...]


@dataclass(frozen=True)
class MapInformation:
    """What the kernel says of a map; ``kind`` is of enum bpf_map_type."""

    identifier: int
    maximum_entries: int
    key_size: int
    value_size: int
    kind: int
    flags: int
    name: str


@dataclass(frozen=True)
class LinkInformation:
    """What the kernel says of a cgroup link; cgroup_id 0: its cgroup is gone."""

    identifier: int
    program_id: int
    cgroup_id: int
    attach_type: int


@contextmanager
def directory(path: str) -> Iterator[int]:
    """Opens a directory for attaching; no symlink is followed at its end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def program_id(descriptor: int) -> int:
    """Returns the kernel's id of an open program."""
    return int(_information(descriptor, _ProgramInformation()).id)


def program_information(descriptor: int) -> ProgramInformation:
    """Returns what an open program is and which maps it uses."""
    count = _information(descriptor, _ProgramInformation()).map_count
    identifiers = (ctypes.c_uint32 * count)()
    wanted = _ProgramInformation(map_count=count, map_ids=ctypes.addressof(identifiers))
    found = _information(descriptor, wanted)
    return ProgramInformation(found.id, found.type, bytes(found.tag).hex(), tuple(identifiers))


def open_program(identifier: int) -> int:
    """Opens a program by its id; raises BpfError (ENOENT: it is gone)."""
    return int(libbpf.library().call(f"open the program {identifier}", "bpf_prog_get_fd_by_id", identifier))


def open_map(identifier: int) -> int:
    """Opens a map by its id; raises BpfError (ENOENT: it is gone)."""
    return int(libbpf.library().call(f"open the map {identifier}", "bpf_map_get_fd_by_id", identifier))


def program_name(identifier: int) -> str:
    """Returns a program's name for messages, or its id when it is gone."""
    try:
        descriptor = open_program(identifier)
    except libbpf.BpfError:
        return f"program {identifier}"
    try:
        information = _information(descriptor, _ProgramInformation())
        return f"{information.name.decode(errors='replace') or 'unnamed'} (program {identifier})"
    finally:
        os.close(descriptor)


def map_information(descriptor: int) -> MapInformation:
    """Returns an open map's id, name and shape."""
    found = _information(descriptor, _MapInformation())
    return MapInformation(
        identifier=found.id,
        maximum_entries=found.maximum_entries,
        key_size=found.key_size,
        value_size=found.value_size,
        kind=found.type,
        flags=found.flags,
        name=found.name.decode(errors="replace"),
    )


def link_information(descriptor: int) -> LinkInformation:
    """Returns what an open cgroup link links."""
    found = _information(descriptor, _LinkInformation())
    return LinkInformation(found.id, found.program_id, found.cgroup_id, found.attach_type)


def link_cgroup(program: int, cgroup_path: str, attach_type: int = CGROUP_SOCK_OPS) -> int:
    """Attaches a program to a cgroup by a link; returns its descriptor.

    Raises NotOurs, naming the holder, when another program holds the cgroup
    exclusively; BpfError with EINVAL when the kernel has no cgroup links (5.7).
    """
    with directory(cgroup_path) as cgroup:
        try:
            return int(
                libbpf.library().call(
                    f"attach to {cgroup_path}",
                    "bpf_link_create",
                    program,
                    cgroup,
                    attach_type,
                    None,
                )
            )
        except libbpf.BpfError as error:
            if error.errno == errno.EPERM:
                raise held_by_another(cgroup_path, attach_type) from error
            raise


def programs_at(cgroup_path: str, attach_type: int = CGROUP_SOCK_OPS) -> tuple[int, ...]:
    """Returns the ids of the programs attached to this cgroup itself."""
    with directory(cgroup_path) as cgroup:
        return queried(cgroup, attach_type, cgroup_path)


def queried(target: int, attach_type: int, name: str) -> tuple[int, ...]:
    """Returns the ids of the programs at an open cgroup, or at a device given by its index.

    ``name`` is the target's, for the error. Raises BpfError with EINVAL when
    the kernel does not know the type.
    """
    identifiers = (ctypes.c_uint32 * QUERIED_PROGRAMS)()
    count = ctypes.c_uint32(QUERIED_PROGRAMS)
    flags = ctypes.c_uint32()
    libbpf.library().call(
        f"query {name}",
        "bpf_prog_query",
        target,
        attach_type,
        0,
        ctypes.byref(flags),
        identifiers,
        ctypes.byref(count),
    )
    return tuple(identifiers[: count.value])


def update_link(link: int, program: int) -> None:
    """Swaps a link's program; there is no moment with neither."""
    libbpf.library().call("swap a link's program", "bpf_link_update", link, program, None)


def attach_to_socket_map(program: int, socket_map: int, attach_type: int = SK_MSG_VERDICT) -> None:
    """Makes a program run for sockets that enter the map from now on; sk_msg, if no type is given.

    The old call: kernels before 6.10 have no link for it, and one way that
    works everywhere needs one test.
    """
    libbpf.library().call("attach to the socket map", "bpf_prog_attach", program, socket_map, attach_type, 0)


def run_map_iterator(program: int, walked_map: int) -> bytes:
    """Runs an iterator program over a map; returns all it wrote (kernel 5.10; the storage it reads, 5.11)."""
    target = _IteratorTarget(map_descriptor=walked_map)
    options = _LinkOptions(
        size=ctypes.sizeof(_LinkOptions),
        iterator_target=ctypes.addressof(target),
        iterator_target_length=ctypes.sizeof(_IteratorTarget),
    )
    return _run_iterator(program, ctypes.byref(options))


def run_iterator(program: int) -> bytes:
    """Runs an iterator program that walks no map; returns all it wrote.

    One that walks sockets sees the network namespace of the calling thread.
    """
    return _run_iterator(program, None)


def _run_iterator(program: int, options: object) -> bytes:
    library = libbpf.library()
    link = library.call("attach the iterator", "bpf_link_create", program, 0, TRACE_ITERATOR, options)
    try:
        stream = library.call("start the iterator", "bpf_iter_create", link)
        with os.fdopen(stream, "rb", buffering=0) as reader:
            return b"".join(iter(lambda: reader.read(ITERATOR_CHUNK), b""))
    finally:
        os.close(link)


def held_by_another(cgroup_path: str, attach_type: int = CGROUP_SOCK_OPS) -> NotOurs:
    """Builds the error for a cgroup whose slot another program holds alone."""
    holders = ", ".join(program_name(identifier) for identifier in programs_at(cgroup_path, attach_type))
    return NotOurs(
        wanted=f"to attach to {cgroup_path} beside others",
        found=f"it is held exclusively by {holders or 'a program of an ancestor cgroup'}",
        remedy="have its owner attach it with BPF_F_ALLOW_MULTI, or leave this cgroup out",
    )


def _information(descriptor: int, structure: ctypes.Structure) -> ctypes.Structure:
    length = ctypes.c_uint32(ctypes.sizeof(structure))
    libbpf.library().call(
        "ask the kernel about a BPF object",
        "bpf_obj_get_info_by_fd",
        descriptor,
        ctypes.byref(structure),
        ctypes.byref(length),
    )
    return structure
