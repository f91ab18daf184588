# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""libbpf through ctypes: prototypes, one error type, libbpf's own messages.

ctypes costs the node 3 ms to import and needs no compiler and no kernel
headers. libbpf 0.5 (Ubuntu 22.04) to 1.x are supported; strict mode gives 0.x
the error conventions of 1.x (libbpf's migration guide).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import signal
from collections.abc import Iterator
from typing import Any

from ..errors import Unsupported

LIBRARIES = ("libbpf.so.1", "libbpf.so.0")
STRICT_ALL = 0xFFFFFFFF
#: The verifier's log ends with the reason; more of it does not help an operator.
MESSAGE_LINES_KEPT = 12
#: A verifier log comes as one message; its end is what counts, so it must fit.
MESSAGE_BYTES = 4 << 20
WARN_LEVEL = 0
#: libbpf's own error numbers begin here (libbpf_legacy.h); the C library has no words for them.
FIRST_OWN_ERROR = 4000
#: What ends a run. Python drops the exception of a handler that runs in a ctypes callback.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Pointer = ctypes.c_void_p
_Int = ctypes.c_int
_Unsigned = ctypes.c_uint
_String = ctypes.c_char_p
_PrintCallback = ctypes.CFUNCTYPE(_Int, _Int, _String, _Pointer)

#: name: (result, arguments), as in libbpf.h, bpf.h and btf.h.
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (_Pointer, (_String, _Pointer)),
    "bpf_object__load": (_Int, (_Pointer,)),
    "bpf_object__close": (None, (_Pointer,)),
    "bpf_object__btf": (_Pointer, (_Pointer,)),
    "bpf_object__find_map_by_name": (_Pointer, (_Pointer, _String)),
    "bpf_object__find_program_by_name": (_Pointer, (_Pointer, _String)),
    "bpf_object__next_program": (_Pointer, (_Pointer, _Pointer)),
    "bpf_map__fd": (_Int, (_Pointer,)),
    "bpf_map__set_max_entries": (_Int, (_Pointer, ctypes.c_uint32)),
    "bpf_map__reuse_fd": (_Int, (_Pointer, _Int)),
    "bpf_map__set_pin_path": (_Int, (_Pointer, _String)),
    "bpf_map__type": (_Int, (_Pointer,)),
    "bpf_map__key_size": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__value_size": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__max_entries": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__map_flags": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__btf_key_type_id": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__btf_value_type_id": (ctypes.c_uint32, (_Pointer,)),
    "bpf_map__initial_value": (_Pointer, (_Pointer, ctypes.POINTER(ctypes.c_size_t))),
    "bpf_program__fd": (_Int, (_Pointer,)),
    "bpf_program__name": (_String, (_Pointer,)),
    "bpf_program__get_type": (_Int, (_Pointer,)),
    "bpf_program__section_name": (_String, (_Pointer,)),
    "bpf_program__set_autoload": (_Int, (_Pointer, ctypes.c_bool)),
    "bpf_program__get_expected_attach_type": (_Int, (_Pointer,)),
    "bpf_obj_pin": (_Int, (_Int, _String)),
    "bpf_obj_get": (_Int, (_String,)),
    "bpf_map_update_elem": (_Int, (_Int, _Pointer, _Pointer, ctypes.c_uint64)),
    "bpf_map_lookup_elem": (_Int, (_Int, _Pointer, _Pointer)),
    "bpf_map_delete_elem": (_Int, (_Int, _Pointer)),
    "bpf_map_get_next_key": (_Int, (_Int, _Pointer, _Pointer)),
    "bpf_map_lookup_batch": (
        _Int,
        (_Int, _Pointer, _Pointer, _Pointer, _Pointer, ctypes.POINTER(ctypes.c_uint32), _Pointer),
    ),
    "bpf_prog_attach": (_Int, (_Int, _Int, _Int, _Unsigned)),
    "bpf_prog_query": (
        _Int,
        (
            _Int,
            _Int,
            ctypes.c_uint32,
            ctypes.POINTER(ctypes.c_uint32),
            ctypes.POINTER(ctypes.c_uint32),
            ctypes.POINTER(ctypes.c_uint32),
        ),
    ),
    "bpf_tc_hook_create": (_Int, (_Pointer,)),
    "bpf_tc_hook_destroy": (_Int, (_Pointer,)),
    "bpf_tc_attach": (_Int, (_Pointer, _Pointer)),
    "bpf_tc_detach": (_Int, (_Pointer, _Pointer)),
    "bpf_prog_test_run_opts": (_Int, (_Int, _Pointer)),
    "bpf_prog_get_fd_by_id": (_Int, (ctypes.c_uint32,)),
    "bpf_map_get_fd_by_id": (_Int, (ctypes.c_uint32,)),
    "bpf_link_create": (_Int, (_Int, _Int, _Int, _Pointer)),
    "bpf_link_update": (_Int, (_Int, _Int, _Pointer)),
    "bpf_iter_create": (_Int, (_Int,)),
    "bpf_obj_get_info_by_fd": (_Int, (_Int, _Pointer, ctypes.POINTER(ctypes.c_uint32))),
    "btf__load_into_kernel": (_Int, (_Pointer,)),
    "btf__fd": (_Int, (_Pointer,)),
    "libbpf_find_vmlinux_btf_id": (_Int, (_String, _Int)),
    "btf__parse": (_Pointer, (_String, _Pointer)),
    "btf__free": (None, (_Pointer,)),
    "btf__find_by_name_kind": (ctypes.c_int32, (_Pointer, _String, ctypes.c_uint32)),
    "btf__type_by_id": (_Pointer, (_Pointer, ctypes.c_uint32)),
    "btf__name_by_offset": (_String, (_Pointer, ctypes.c_uint32)),
    "btf__resolve_size": (ctypes.c_int64, (_Pointer, ctypes.c_uint32)),
    "libbpf_num_possible_cpus": (_Int, ()),
    "libbpf_set_print": (_Pointer, (_PrintCallback,)),
}


class BpfError(OSError):
    """A BPF call failed; ``messages`` is what libbpf printed about it."""

    def __init__(self, number: int, what: str, messages: tuple[str, ...] = ()) -> None:
        reason = os.strerror(number) if number < FIRST_OWN_ERROR else "libbpf does not take it"
        super().__init__(number, f"{what}: {reason}")
        self.messages = messages

    def __str__(self) -> str:
        text = super().__str__()
        return text + " (" + " | ".join(self.messages) + ")" if self.messages else text


class Library:
    """The loaded libbpf. Every call raises BpfError instead of returning -1."""

    def __init__(self) -> None:
        self._library = open_library()
        self._messages: list[str] = []
        self._libc = ctypes.CDLL(None)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._library, name, None)
            if function is not None:
                function.restype, function.argtypes = result, list(arguments)
        if hasattr(self._library, "libbpf_set_strict_mode"):
            self._library.libbpf_set_strict_mode(STRICT_ALL)
        #: Kept alive: libbpf holds only the bare function pointer.
        self._callback = _PrintCallback(self._print)

    def _print(self, level: int, text: bytes, arguments: int) -> int:
        if level != WARN_LEVEL:
            return 0
        buffer = ctypes.create_string_buffer(MESSAGE_BYTES)
        self._libc.vsnprintf(buffer, ctypes.c_size_t(MESSAGE_BYTES), text, _Pointer(arguments))
        lines = buffer.value.decode(errors="replace").splitlines()
        self._messages = (self._messages + lines)[-MESSAGE_LINES_KEPT:]
        return 0

    @contextlib.contextmanager
    def messages(self) -> Iterator[list[str]]:
        """Collects what libbpf prints at warning level while the block runs.

        A signal that ends the run waits until then.
        """
        self._messages = []
        # Each time, since libbpf has one printer for all of a process.
        self._library.libbpf_set_print(self._callback)
        collected: list[str] = []
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            yield collected
        finally:
            collected.extend(line for line in self._messages if line.strip())
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def call(self, what: str, name: str, *arguments: object) -> int:
        """Calls a libbpf function; raises BpfError with errno for -1 or NULL.

        ``what`` is the operator's word for the step, used in the error.
        """
        function = getattr(self._library, name)
        with self.messages() as printed:
            result = function(*arguments)
        number = ctypes.get_errno()
        if function.restype is _Pointer and not result:
            raise BpfError(number or errno.EINVAL, what, tuple(printed))
        if function.restype in (_Int, ctypes.c_int32, ctypes.c_int64) and result < 0:
            raise BpfError(number if result == -1 else -result, what, tuple(printed))
        return int(result or 0)

    def text(self, name: str, *arguments: object) -> str:
        """Calls a libbpf function that returns a string of its own."""
        result: bytes | None = getattr(self._library, name)(*arguments)
        return (result or b"").decode(errors="replace")

    def walk(self, name: str, container: int) -> Iterator[int]:
        """Yields what a ``next`` function of libbpf (0.6 on) finds in an object; NULL is its end.

        Raises Unsupported when this libbpf has no such function.
        """
        function = getattr(self._library, name, None)
        if function is None:
            raise Unsupported(
                wanted=f"a libbpf that has {name}",
                found="an older one",
                remedy="install libbpf 0.6 or newer",
            )
        item = function(container, None)
        while item:
            yield int(item)
            item = function(container, item)

    def possible_cpus(self) -> int:
        """Returns how many values a per-CPU map holds for each key."""
        return int(self.call("count the CPUs", "libbpf_num_possible_cpus"))


def open_library() -> ctypes.CDLL:
    """Opens libbpf; raises Unsupported when the node has none."""
    for name in LIBRARIES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name, use_errno=True)
    raise Unsupported(
        wanted="the library libbpf",
        found="neither " + " nor ".join(LIBRARIES),
        remedy="install the package libbpf1 (Debian 12+, Ubuntu 24.04), libbpf0 (Ubuntu 22.04)",
    )


@functools.lru_cache(maxsize=1)
def library() -> Library:
    """Returns the one Library of this process."""
    return Library()
