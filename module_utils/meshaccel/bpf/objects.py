# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""A BPF object file: opened, configured, loaded; programs and maps by name."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping

from ..errors import MeshaccelError
from . import layouts, libbpf

READ_ONLY_SECTION = ".rodata"
MAPS_SECTION = ".maps"


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

    def constant_sizes(self) -> dict[str, int]:
        """Returns the size in bytes of each ``const volatile`` variable; empty when it has none."""
        return {name: size for name, (_, size) in self._variables(READ_ONLY_SECTION).items()}

    def map_names(self) -> tuple[str, ...]:
        """Returns the names of the maps that the object declares."""
        return tuple(self._variables(MAPS_SECTION))

    def program_names(self) -> tuple[str, ...]:
        """Returns the names of the object's programs (libbpf 0.6 on)."""
        return tuple(libbpf.library().text("bpf_program__name", program) for program in self._programs())

    def load_only(self, name: str) -> None:
        """Leaves the object's other programs out of the load; call before it."""
        for program in self._programs():
            wanted = libbpf.library().text("bpf_program__name", program) == name
            libbpf.library().call("choose a program", "bpf_program__set_autoload", program, wanted)

    def leave_out(self, name: str) -> None:
        """Leaves one program out of the load; call before it."""
        chosen = ctypes.c_bool(False)
        libbpf.library().call("leave a program out", "bpf_program__set_autoload", self._program(name), chosen)

    def ignore_pin_paths(self) -> None:
        """Has libbpf not pin maps where the object says, outside our directory; call before load."""
        for name in self.map_names():
            libbpf.library().call(f"keep map {name} unpinned", "bpf_map__set_pin_path", self._map(name), None)

    def attach_type(self, name: str) -> int:
        """Returns where libbpf, by the program's section, expects it to be attached."""
        return int(
            libbpf.library().call(
                f"attach type of program {name}",
                "bpf_program__get_expected_attach_type",
                self._program(name),
            )
        )

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
        program = self._program(name)
        return int(libbpf.library().call(f"descriptor of program {name}", "bpf_program__fd", program))

    def _program(self, name: str) -> int:
        handle: int = libbpf.library().call(
            f"find the program {name}", "bpf_object__find_program_by_name", self._handle, name.encode()
        )
        return handle

    def _programs(self) -> Iterator[int]:
        return libbpf.library().walk("bpf_object__next_program", self._handle)

    def _variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Returns {name: (offset, size)} of a section; empty when there is no such section."""
        btf = libbpf.library().call("read BTF", "bpf_object__btf", self._handle)
        try:
            return layouts.section_variables(btf, section)
        except libbpf.BpfError as error:
            if error.errno == errno.ENOENT:
                return {}
            raise

    def _map(self, name: str) -> int:
        handle: int = libbpf.library().call(
            f"find the map {name}", "bpf_object__find_map_by_name", self._handle, name.encode()
        )
        return handle

    def _read_only_map(self) -> int:
        return self._map(READ_ONLY_SECTION)
