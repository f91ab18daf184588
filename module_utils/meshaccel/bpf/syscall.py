# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""bpf(2) itself: creates single maps and loads single programs.

libbpf's wrappers for these two changed between 0.5 and 1.x, the system call
did not; and a probe has to answer on a node without libbpf as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import Unsupported
from .libbpf import BpfError

#: __NR_bpf, from the kernel's system call tables.
SYSTEM_CALL_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "s390x": 351,
}
#: enum bpf_cmd, include/uapi/linux/bpf.h.
MAP_CREATE = 0
MAP_UPDATE_ELEMENT = 2
PROGRAM_LOAD = 5
BTF_LOAD = 18

LICENSE = b"GPL"
PROBE_NAME = "meshaccel_probe"
NAME_BYTES = 16
#: The end of a log is what counts, and before 6.4 the kernel keeps its beginning.
VERIFIER_LOG_BYTES = 16 << 20
VERIFIER_LOG_LEVEL = 1
#: What the verifier says of itself, after the reason.
VERIFIER_STATISTICS = ("processed ", "verification time ", "stack depth ")


class _MapCreate(ctypes.Structure):
    """The head of union bpf_attr for BPF_MAP_CREATE."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("maximum_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("inner_map", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("interface", ctypes.c_uint32),
        ("btf", ctypes.c_uint32),
        ("btf_key_type", ctypes.c_uint32),
        ("btf_value_type", ctypes.c_uint32),
    ]


class _MapElement(ctypes.Structure):
    """union bpf_attr for BPF_MAP_*_ELEM."""

    _fields_ = [
        ("map", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _ProgramLoad(ctypes.Structure):
    """The head of union bpf_attr for BPF_PROG_LOAD."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("instruction_count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buffer", ctypes.c_uint64),
        ("kernel_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("interface", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
        ("program_btf", ctypes.c_uint32),
        ("function_record_size", ctypes.c_uint32),
        ("functions", ctypes.c_uint64),
        ("function_count", ctypes.c_uint32),
        ("line_record_size", ctypes.c_uint32),
        ("lines", ctypes.c_uint64),
        ("line_count", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
    ]


class _BtfLoad(ctypes.Structure):
    """The head of union bpf_attr for BPF_BTF_LOAD."""

    _fields_ = [
        ("btf", ctypes.c_uint64),
        ("log_buffer", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class Description:
    """A map's name, and the types of its key and value, by their ids in loaded BTF."""

    name: str
    btf: int = 0
    key_type: int = 0
    value_type: int = 0


PROBE = Description(PROBE_NAME)


def create_map(
    kind: int,
    *,
    key_size: int,
    value_size: int,
    entries: int,
    flags: int = 0,
    description: Description = PROBE,
) -> int:
    """Creates a map and returns its descriptor; raises BpfError. Some types want their key's and value's."""
    attributes = _MapCreate(
        type=kind,
        key_size=key_size,
        value_size=value_size,
        maximum_entries=entries,
        flags=flags,
        name=short_name(description.name),
        btf=description.btf,
        btf_key_type=description.key_type,
        btf_value_type=description.value_type,
    )
    return _call(f"create the map {description.name} of type {kind}", MAP_CREATE, attributes)


def update_socket_map(socket_map: int, index: int, socket: int) -> None:
    """Puts an established socket into a SOCKMAP; raises BpfError (EBUSY: held by another map)."""
    key, value = ctypes.c_uint32(index), ctypes.c_uint32(socket)
    attributes = _MapElement(map=socket_map, key=ctypes.addressof(key), value=ctypes.addressof(value))
    _call("put a socket into a map", MAP_UPDATE_ELEMENT, attributes)


def load_program(
    kind: int,
    instructions: bytes,
    *,
    attach_type: int = 0,
    attach_btf_id: int = 0,
    name: str = PROBE_NAME,
    lines: int = 1,
) -> int:
    """Has the verifier check a program and returns its descriptor.

    Raises BpfError whose messages are the last ``lines`` of the verifier's reason.
    """
    what = f"load the program {name} of type {kind}"
    text = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(LICENSE)
    attributes = _ProgramLoad(
        type=kind,
        instruction_count=len(instructions) // 8,
        instructions=ctypes.addressof(text),
        license=ctypes.addressof(license_text),
        name=short_name(name),
        expected_attach_type=attach_type,
        attach_btf_id=attach_btf_id,
    )
    with contextlib.suppress(BpfError):
        return _call(what, PROGRAM_LOAD, attributes)
    # Once more for the reason: a log costs time, and one that does not fit is an error.
    log = ctypes.create_string_buffer(VERIFIER_LOG_BYTES)
    attributes.log_level = VERIFIER_LOG_LEVEL
    attributes.log_size = VERIFIER_LOG_BYTES
    attributes.log_buffer = ctypes.addressof(log)
    try:
        return _call(what, PROGRAM_LOAD, attributes)
    except BpfError as error:
        raise BpfError(error.errno or 0, what, verdict(log.value, lines)) from error


def short_name(name: str) -> bytes:
    """Returns a name as the kernel keeps it."""
    return name.encode()[: NAME_BYTES - 1]


def verdict(log: bytes, count: int = 1) -> tuple[str, ...]:
    """Returns the verifier's reason: the last lines of its log that are no statistics."""
    lines = log.decode(errors="replace").splitlines()
    reasons = [line for line in lines if line.strip() and not line.startswith(VERIFIER_STATISTICS)]
    return tuple(reasons[-count:])


#: The id that load_integer_btf gives its one type.
INTEGER_TYPE = 1


def load_integer_btf() -> int:
    """Loads BTF that describes a C int, type INTEGER_TYPE, and returns its descriptor.

    Encoding: Documentation/bpf/btf.rst of the kernel. Raises BpfError.
    """
    kind_integer, signed, bits = 1, 1, 32
    types = struct.pack("=IIII", 1, kind_integer << 24, bits // 8, signed << 24 | bits)
    strings = b"\0int\0"
    magic, version, flags, header_size = 0xEB9F, 1, 0, 24
    header = struct.pack(
        "=HBBIIIII", magic, version, flags, header_size, 0, len(types), len(types), len(strings)
    )
    content = header + types + strings
    buffer = ctypes.create_string_buffer(content, len(content))
    attributes = _BtfLoad(btf=ctypes.addressof(buffer), btf_size=len(content))
    return _call("load BTF", BTF_LOAD, attributes)


@contextmanager
def unlimited_locked_memory() -> Iterator[None]:
    """Lifts RLIMIT_MEMLOCK meanwhile: kernels before 5.11 charge BPF memory to it."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    lifted = True
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        # Without CAP_SYS_RESOURCE. Newer kernels do not need it; older ones then say EPERM.
        lifted = False
    try:
        yield
    finally:
        if lifted:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def system_call_number(machine: str) -> int:
    """Returns the number of bpf(2) on a machine type (``uname -m``); raises Unsupported."""
    number = SYSTEM_CALL_NUMBERS.get(machine)
    if number is None:
        raise Unsupported(
            wanted=f"the number of the system call bpf(2) on {machine}",
            found="only those of " + ", ".join(sorted(SYSTEM_CALL_NUMBERS)),
            remedy="leave this node out of the accelerators' groups",
        )
    return number


def _call(what: str, command: int, attributes: ctypes.Structure) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(
        ctypes.c_long(system_call_number(os.uname().machine)),
        ctypes.c_long(command),
        ctypes.byref(attributes),
        ctypes.c_ulong(ctypes.sizeof(attributes)),
    )
    if result < 0:
        raise BpfError(ctypes.get_errno(), what)
    return result
