# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""A BPF object file: opened, configured, loaded; programs and maps by name."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from ..errors import MeshaccelError
from . import layouts, libbpf

READ_ONLY_SECTION = ".rodata"


class BpfObject:
    """An object file on its way into the kernel. Use as a context manager.

    What is not pinned or attached when it closes goes away with it.
    """

    def __init__(self, path: str) -> None:
        """Opens the file; raises BpfError when libbpf does not take it."""
        self.path = path
        self._handle = libbpf.library().call(
            f"open the BPF object {path}", "bpf_object__open_file", os.fsencode(path), None
        )

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *_: object) -> None:
        libbpf.library().call("close the BPF object", "bpf_object__close", self._handle)

    def set_constants(self, values: Mapping[str, int]) -> None:
        """Sets ``const volatile`` variables; call before load.

        Raises MeshaccelError for a variable that the object does not have.
        """
        library = libbpf.library()
        btf = library.call("read BTF", "bpf_object__btf", self._handle)
        variables = layouts.section_variables(btf, READ_ONLY_SECTION)
        length = ctypes.c_size_t()
        start = library.call(
            "find the read-only data",
            "bpf_map__initial_value",
            self._read_only_map(),
            ctypes.byref(length),
        )
        for name, value in values.items():
            if name not in variables:
                raise MeshaccelError(
                    wanted=f"to set the constant {name} of {self.path}",
                    found="only " + ", ".join(sorted(variables)),
                    remedy="package and object are of different versions: install the node release again",
                )
            offset, size = variables[name]
            ctypes.memmove(start + offset, value.to_bytes(size, "little"), size)

    def set_maximum_entries(self, map_name: str, entries: int) -> None:
        """Sets a map's size; call before load."""
        libbpf.library().call(
            f"size the map {map_name}", "bpf_map__set_max_entries", self._map(map_name), entries
        )

    def reuse_map(self, map_name: str, descriptor: int) -> None:
        """Uses a map that exists instead of creating one; call before load."""
        libbpf.library().call(
            f"reuse the map {map_name}", "bpf_map__reuse_fd", self._map(map_name), descriptor
        )

    def load(self) -> None:
        """Creates the maps and has the verifier check the programs.

        Raises BpfError with the end of the verifier's log.
        """
        libbpf.library().call(f"load {self.path}", "bpf_object__load", self._handle)

    def map_descriptor(self, name: str) -> int:
        """Returns a loaded map's descriptor; it stays the object's."""
        return int(libbpf.library().call(f"descriptor of map {name}", "bpf_map__fd", self._map(name)))

    def program_descriptor(self, name: str) -> int:
        """Returns a loaded program's descriptor; it stays the object's."""
        library = libbpf.library()
        program = library.call(
            f"find the program {name}",
            "bpf_object__find_program_by_name",
            self._handle,
            name.encode(),
        )
        return int(library.call(f"descriptor of program {name}", "bpf_program__fd", program))

    def _map(self, name: str) -> int:
        handle: int = libbpf.library().call(
            f"find the map {name}", "bpf_object__find_map_by_name", self._handle, name.encode()
        )
        return handle

    def _read_only_map(self) -> int:
        return self._map(READ_ONLY_SECTION)
