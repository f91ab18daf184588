# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""A BPF object whose programs are compiled on the node by bcc, with the kernel's own headers.

The object file says what maps and programs there are; libbpf only reads it.
The maps are created as it declares them, with its BTF; the programs are built
from the sources beside it (bpf/include/meshaccel/built_on_node.h) and given to
the kernel as they are. So neither the kernel's BTF nor a libbpf that knows
CO-RE is needed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import Unsupported
from . import attach, bcc_compiler, libbpf, syscall
from .loaders import KERNEL_BTF, kernel_has_btf
from .objects import BpfObject

#: bcc is a module of the distribution's Python, which may not be the one that runs this.
SYSTEM_PYTHON = "/usr/bin/python3"
#: A busy machine under emulation takes five minutes, any other some seconds.
COMPILER_SECONDS = 1800
#: The compiler's last lines say what it refuses.
ERROR_LINES = 6
HEADERS = "/lib/modules/{release}/build"
#: Headers as a kernel module brings them (CONFIG_IKHEADERS), which bcc takes as well.
HEADERS_ARCHIVE = "/sys/kernel/kheaders.tar.xz"
KERNEL_SYMBOLS_FILE = "/proc/kallsyms"
#: Those that the sources name by KERNEL_SYMBOL().
KERNEL_SYMBOLS = ("woken_wake_function",)
SOURCES_DIRECTORY = "source"
OBJECT_SUFFIX = ".bpf.o"
SOURCE_SUFFIX = ".bpf.c"
#: bcc takes as programs what the main file defines, so each gets a function there that calls it.
PREFIX = "built_"
#: What libbpf calls an iterator's section: ``iter/`` and what it goes over.
ITERATOR_SECTION = "iter/"
#: enum bpf_attach_type, include/uapi/linux/bpf.h.
TRACE_ITERATOR = 28


class NodeBuiltObject(BpfObject):
    """An object as BpfObject has it. Where the kernel has no BTF, iterators are left out of the load."""

    def __init__(self, path: str) -> None:
        """Opens the file; raises BpfError when libbpf does not take it."""
        super().__init__(path)
        self._entries: dict[str, int] = {}
        self._map_descriptors: dict[str, int] = {}
        self._program_descriptors: dict[str, int] = {}

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._map_descriptors.values(), *self._program_descriptors.values()):
            os.close(descriptor)
        super().__exit__()

    def set_maximum_entries(self, map_name: str, entries: int) -> None:
        """Sets a map's size; call before load."""
        self._entries[map_name] = entries

    def reuse_map(self, map_name: str, descriptor: int) -> None:
        """Uses a map that exists instead of creating one; call before load."""
        self._map_descriptors[map_name] = os.dup(descriptor)

    def load(self) -> None:
        """Creates the maps, compiles the programs and has the verifier check them.

        Raises BpfError with the end of the verifier's log, Unsupported when bcc
        or the kernel's headers are missing or the compiler refuses the sources.
        """
        types = libbpf.library().call("read BTF", "bpf_object__btf", self._handle)
        libbpf.library().call(f"load the BTF of {self.path}", "btf__load_into_kernel", types)
        btf = libbpf.library().call("find the BTF", "btf__fd", types)
        for name in self.map_names():
            if name not in self._map_descriptors:
                self._map_descriptors[name] = self._create_map(name, btf)
        programs = self._loadable()
        # The compiler takes seconds, also for nothing.
        if programs:
            for name, instructions in compiled(self._request(programs)).items():
                self._program_descriptors[name] = self._load_program(name, instructions)

    def map_descriptor(self, name: str) -> int:
        """Returns a loaded map's descriptor; it stays the object's."""
        return self._map_descriptors[name]

    def program_descriptor(self, name: str) -> int:
        """Returns a loaded program's descriptor; it stays the object's.

        Raises Unsupported for an iterator on a kernel without BTF.
        """
        if name not in self._program_descriptors:
            raise Unsupported(
                wanted=f"the program {name}, which goes over the kernel's sockets",
                found=f"no {KERNEL_BTF}: this kernel was built without BTF, and has no iterators",
                remedy="nothing else on this node needs it; a kernel with CONFIG_DEBUG_INFO_BTF has it",
            )
        return self._program_descriptors[name]

    def _create_map(self, name: str, btf: int) -> int:
        create = functools.partial(
            syscall.create_map,
            self._of_map("type", name),
            key_size=self._of_map("key_size", name),
            value_size=self._of_map("value_size", name),
            entries=self._entries.get(name, self._of_map("max_entries", name)),
            flags=self._of_map("map_flags", name),
        )
        key, value = self._of_map("btf_key_type_id", name), self._of_map("btf_value_type_id", name)
        # Some types want their key and value described, others refuse it; libbpf tries both as well.
        with contextlib.suppress(libbpf.BpfError):
            return create(description=syscall.Description(name, btf, key, value))
        return create(description=syscall.Description(name))

    def _of_map(self, what: str, name: str) -> int:
        return libbpf.library().call(f"read {what} of map {name}", f"bpf_map__{what}", self._map(name))

    def _loadable(self) -> list[str]:
        """Returns the programs that this kernel takes."""
        with_btf = kernel_has_btf()
        return [name for name in self.program_names() if with_btf or not self._iterates_over(name)]

    def _request(self, programs: Iterable[str]) -> dict[str, Any]:
        """Returns what the compiler is asked for."""
        directory = os.path.join(os.path.dirname(self.path), SOURCES_DIRECTORY)
        source = os.path.basename(self.path)[: -len(OBJECT_SUFFIX)] + SOURCE_SUFFIX
        return {
            "text": main_file(source, programs),
            "flags": [
                f"-I{directory}",
                f"-I{os.path.join(directory, 'include')}",
                "-DMESHACCEL_BUILT_ON_NODE",
                *(["-DKERNEL_HAS_BTF"] if kernel_has_btf() else []),
                *self._map_flags(),
                *symbol_flags(KERNEL_SYMBOLS_FILE, KERNEL_SYMBOLS),
            ],
            "programs": [PREFIX + name for name in programs],
        }

    def _map_flags(self) -> Iterator[str]:
        for name, descriptor in self._map_descriptors.items():
            yield f"-DMAP_{name}={descriptor}"
            yield f"-DENTRIES_{name}={attach.map_information(descriptor).maximum_entries}"

    def _iterates_over(self, name: str) -> str:
        """Returns what an iterator goes over, of any other program nothing."""
        section = libbpf.library().text("bpf_program__section_name", self._program(name))
        return section[len(ITERATOR_SECTION) :] if section.startswith(ITERATOR_SECTION) else ""

    def _load_program(self, name: str, instructions: bytes) -> int:
        target, function = self._iterates_over(name), 0
        if target:
            function = libbpf.library().call(
                f"find what goes over every {target}",
                "libbpf_find_vmlinux_btf_id",
                target.encode(),
                TRACE_ITERATOR,
            )
        return syscall.load_program(
            libbpf.library().call(f"type of program {name}", "bpf_program__get_type", self._program(name)),
            instructions,
            attach_type=self.attach_type(name),
            attach_btf_id=function,
            name=name,
            lines=libbpf.MESSAGE_LINES_KEPT,
        )


def main_file(source: str, programs: Iterable[str]) -> str:
    """Returns the text that bcc compiles."""
    functions = [f"int {PREFIX}{name}(void *context) {{ return {name}(context); }}" for name in programs]
    return "\n".join([f'#include "{source}"', *functions, ""])


def symbol_flags(path: str, names: Iterable[str]) -> list[str]:
    """Returns the macros that name kernel symbols' addresses, read from a file such as /proc/kallsyms."""
    wanted = dict.fromkeys(names, "0")
    with open(path, encoding="ascii") as symbols:
        for line in symbols:
            address, _, name = line.split()[:3]
            if name in wanted:
                wanted[name] = address
    return [f"-DSYMBOL_{name}=0x{address}" for name, address in wanted.items()]


def compiled(
    request: Mapping[str, Any], python: str = SYSTEM_PYTHON, headers: str = HEADERS
) -> dict[str, bytes]:
    """Has bcc compile programs; returns the instructions of each, by its name in the sources.

    Raises Unsupported when bcc or the running kernel's headers are missing, or
    the compiler refuses the sources.
    """
    release = os.uname().release
    require_headers(headers.format(release=release), release)
    try:
        done = subprocess.run(
            # By its text: where Ansible runs this, the package is no folder.
            [python, "-I", "-c", inspect.getsource(bcc_compiler)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=COMPILER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_compiler(str(error)) from error
    if done.returncode == bcc_compiler.MISSING:
        raise no_compiler(done.stderr.strip())
    if done.returncode:
        raise Unsupported(
            wanted=f"bcc to compile {len(request['programs'])} programs for Linux {release}",
            found=reason(done.stderr),
            remedy="use sockops_loader libbpf on this node, if its kernel has BTF",
        )
    return {name[len(PREFIX) :]: bytes.fromhex(code) for name, code in json.loads(done.stdout).items()}


def require_headers(directory: str, release: str) -> None:
    """Raises Unsupported unless the headers of the running kernel are there."""
    if os.path.isdir(directory) or os.path.exists(HEADERS_ARCHIVE):
        return
    raise Unsupported(
        wanted=f"the headers of the running kernel in {directory}",
        found="no such directory",
        remedy=f"install the package linux-headers-{release} (Debian, Ubuntu) or kernel-devel-{release} "
        "(RHEL); after an update of the kernel, boot it first",
    )


def no_compiler(found: str) -> Unsupported:
    """Builds the error for a node without bcc."""
    return Unsupported(
        wanted=f"bcc for {SYSTEM_PYTHON}",
        found=found,
        remedy="install the package python3-bpfcc (Debian, Ubuntu), python3-bcc (RHEL)",
    )


def reason(said: str) -> str:
    """Returns why a compiler gave up: its errors, or else its last lines."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if " error: " in line]
    return " | ".join((errors or lines)[-ERROR_LINES:]) or "it did not say why"
