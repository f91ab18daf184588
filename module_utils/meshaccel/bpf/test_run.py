# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a loaded program on a packet that never was on a wire: BPF_PROG_TEST_RUN (bpf/bpf_prog_run.rst)."""

from __future__ import annotations

import ctypes

from . import libbpf

#: An Ethernet header and something in it, the least that the kernel takes.
SMALLEST_FRAME = bytes(64)


class Options(ctypes.Structure):
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


def run_once(program: int) -> int:
    """Runs a program that does not look at its packet, by its descriptor; returns its verdict.

    Raises BpfError.
    """
    frame = ctypes.create_string_buffer(SMALLEST_FRAME, len(SMALLEST_FRAME))
    options = Options(
        size=ctypes.sizeof(Options), data_in=ctypes.addressof(frame), data_size_in=len(SMALLEST_FRAME)
    )
    libbpf.library().call("run a program", "bpf_prog_test_run_opts", program, ctypes.byref(options))
    return int(options.verdict)
