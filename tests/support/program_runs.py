"""Runs of a loaded tc program on packets that never were on a wire (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Final

PASS: Final = 0xFFFFFFFF
"""TC_ACT_UNSPEC: on to the next filter, or the stack."""
DROP: Final = 2
REDIRECT: Final = 7
LARGEST_PACKET = 65536
#: Offsets in struct __sk_buff, include/uapi/linux/bpf.h, and its size.
CONTEXT_SIZE = 192
MARK_AT = 8
DEVICE_AT = 40
SEGMENT_AT = 176


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("context_in", ctypes.c_void_p),
        ("context_out", ctypes.c_void_p),
        ("context_size_in", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("processor", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class Outcome:
    """What a program made of a packet."""

    verdict: int
    frame: bytes
    mark: int


def run_program(program: int, frame: bytes, *, mark: int = 0, device: int = 0, segment: int = 0) -> Outcome:
    """Run a program, by its descriptor, on a frame with a mark at a device of this network namespace.

    ``segment`` is its gso_size: how much of it goes into each of the packets that it is to be cut into.
    Raises OSError.
    """
    context = bytearray(CONTEXT_SIZE)
    context[MARK_AT : MARK_AT + 4] = mark.to_bytes(4, "little")
    context[DEVICE_AT : DEVICE_AT + 4] = device.to_bytes(4, "little")
    context[SEGMENT_AT : SEGMENT_AT + 4] = segment.to_bytes(4, "little")
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(LARGEST_PACKET)
    context_in = ctypes.create_string_buffer(bytes(context), CONTEXT_SIZE)
    context_out = ctypes.create_string_buffer(CONTEXT_SIZE)
    options = _Options(
        size=ctypes.sizeof(_Options),
        data_in=ctypes.addressof(data_in),
        data_out=ctypes.addressof(data_out),
        data_size_in=len(frame),
        data_size_out=LARGEST_PACKET,
        context_in=ctypes.addressof(context_in),
        context_out=ctypes.addressof(context_out),
        context_size_in=CONTEXT_SIZE,
        context_size_out=CONTEXT_SIZE,
    )
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    if library.bpf_prog_test_run_opts(program, ctypes.byref(options)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    after = context_out.raw[MARK_AT : MARK_AT + 4]
    return Outcome(options.verdict, data_out.raw[: options.data_size_out], int.from_bytes(after, "little"))
