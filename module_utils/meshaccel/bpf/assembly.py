# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as bytes, for probe programs of a few instructions.

A probe must work where no compiler and no object file is. Encoding: RFC 9669.
"""

from __future__ import annotations

import struct

R0, R1, R2, R3, R4, R5, R6 = range(7)
#: The frame pointer; the stack lies below it.
R10 = 10

_LOAD_IMMEDIATE_64 = 0x18
_LOAD_WORD_64 = 0x79
_STORE_IMMEDIATE_64 = 0x7A
_MOVE = 0xBF
_MOVE_IMMEDIATE = 0xB7
_ADD_IMMEDIATE = 0x07
_JUMP_IF_EQUAL = 0x15
_CALL = 0x85
_EXIT = 0x95
#: Pseudo source registers, include/uapi/linux/bpf.h.
_MAP_BY_DESCRIPTOR = 1
_KERNEL_FUNCTION = 2


def _encode(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    # Two four-bit fields: the host's byte order decides which comes first.
    little_endian = struct.pack("=H", 1)[0] == 1
    registers = source << 4 | destination if little_endian else destination << 4 | source
    return struct.pack("=BBhi", code, registers, offset, immediate)


def move(destination: int, source: int) -> bytes:
    """Copies a register."""
    return _encode(_MOVE, destination, source)


def move_immediate(destination: int, value: int) -> bytes:
    """Puts a signed 32-bit constant into a register."""
    return _encode(_MOVE_IMMEDIATE, destination, immediate=value)


def add_immediate(destination: int, value: int) -> bytes:
    """Adds a signed 32-bit constant to a register."""
    return _encode(_ADD_IMMEDIATE, destination, immediate=value)


def load_word_64(destination: int, base: int, offset: int) -> bytes:
    """Reads eight bytes at base + offset."""
    return _encode(_LOAD_WORD_64, destination, base, offset)


def store_immediate_64(base: int, offset: int, value: int) -> bytes:
    """Writes a constant to the eight bytes at base + offset."""
    return _encode(_STORE_IMMEDIATE_64, base, offset=offset, immediate=value)


def load_map(destination: int, descriptor: int) -> bytes:
    """Puts the address of a map into a register; two instructions."""
    return _encode(_LOAD_IMMEDIATE_64, destination, _MAP_BY_DESCRIPTOR, immediate=descriptor) + _encode(0)


def jump_if_zero(register: int, skipped: bytes) -> bytes:
    """Skips these instructions when the register is zero; returns jump and instructions."""
    return _encode(_JUMP_IF_EQUAL, register, offset=len(skipped) // len(_encode(0))) + skipped


def call_helper(number: int) -> bytes:
    """Calls a helper by its number (enum bpf_func_id)."""
    return _encode(_CALL, immediate=number)


def call_kernel_function(btf_id: int) -> bytes:
    """Calls a kernel function (kfunc) by its id in the kernel's BTF."""
    return _encode(_CALL, source=_KERNEL_FUNCTION, immediate=btf_id)


def leave(value: int) -> bytes:
    """Returns a constant from the program."""
    return move_immediate(R0, value) + _encode(_EXIT)
