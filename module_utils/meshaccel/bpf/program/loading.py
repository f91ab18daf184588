# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""One program of an object file: checked, configured, loaded, recognised again."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ...errors import InvalidInput, NotOurs, Unsupported
from .. import attach, layouts, libbpf, maps, ownership
from ..objects import BpfObject

#: BPF_F_RDONLY_PROG, include/uapi/linux/bpf.h: libbpf sets it on maps of constants.
READ_ONLY_FLAG = 1 << 7
#: libbpf names the maps that it makes of data sections ``object.section``.
INTERNAL_MARK = "."
#: So much of a SHA-256 tells two sets of constants apart.
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class Source:
    """A program in an object file, and how to configure the object before it is loaded."""

    object_path: str
    program: str
    maximum_entries: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProgramFacts:
    """What makes a loaded program the one it is.

    ``constants`` digests the read-only data, which the tag leaves out; ``maps``
    are the declared maps that it uses.
    """

    identifier: int
    kind: int
    tag: str
    constants: str
    maps: tuple[attach.MapInformation, ...]

    @property
    def map_ids(self) -> frozenset[int]:
        """The kernel's ids of the declared maps."""
        return frozenset(entry.identifier for entry in self.maps)

    def same_code(self, other: ProgramFacts) -> bool:
        """True for the same instructions with the same constants."""
        return (self.kind, self.tag, self.constants) == (other.kind, other.tag, other.constants)


@dataclass(frozen=True)
class Candidate:
    """The program as the object file gives it on this kernel; ``maps`` by full name."""

    facts: ProgramFacts
    attach_type: int
    maps: Mapping[str, attach.MapInformation]


def shape(information: attach.MapInformation) -> attach.MapInformation:
    """Returns a map's properties without its identity."""
    return replace(information, identifier=0)


def candidate(source: Source) -> Candidate:
    """Loads the program, lets go of it, and returns what it was. Leaves nothing behind.

    Raises InvalidInput for a wrong name, Unsupported when the verifier refuses.
    """
    with loaded(source) as found:
        facts = program_facts(found.program_descriptor(source.program))
        declared = {name: attach.map_information(found.map_descriptor(name)) for name in found.map_names()}
        used = {name: entry for name, entry in declared.items() if entry.identifier in facts.map_ids}
        return Candidate(facts, found.attach_type(source.program), used)


@contextmanager
def loaded(source: Source, reused: Mapping[str, int] | None = None) -> Iterator[BpfObject]:
    """Loads the one program; ``reused`` has descriptors of maps to use instead of new ones.

    What is not pinned or attached when the block ends goes away. Raises as candidate does.
    """
    with opened(source.object_path) as found:
        check(source, found)
        found.ignore_pin_paths()
        found.load_only(source.program)
        if source.constants:
            found.set_constants(source.constants)
        for name, entries in source.maximum_entries.items():
            found.set_maximum_entries(name, entries)
        for name, descriptor in (reused or {}).items():
            found.reuse_map(name, descriptor)
        try:
            found.load()
        except libbpf.BpfError as error:
            raise Unsupported(
                wanted=f"the kernel to load {source.program} of {source.object_path}",
                found=str(error),
                remedy="the verifier's last lines say what it refuses; mend the program",
            ) from error
        yield found


@contextmanager
def opened(path: str) -> Iterator[BpfObject]:
    """Opens an object file; raises InvalidInput when it is missing or no BPF object with BTF."""
    if not os.path.isfile(path):
        siblings = ownership.entries_of(os.path.dirname(path))
        raise InvalidInput(
            wanted=f"the BPF object {path}",
            found=f"no such file; there are: {ownership.near(os.path.basename(path), siblings)}",
            remedy="copy the object to the node first, or correct the path",
        )
    try:
        with layouts.object_btf(path):
            found = BpfObject(path)
    except (NotOurs, libbpf.BpfError) as error:
        raise InvalidInput(
            wanted=f"a BPF object with BTF at {path}",
            found=error.found if isinstance(error, NotOurs) else str(error),
            remedy="compile it with clang -g -target bpf, and strip it with llvm-strip -g at most",
        ) from error
    with found:
        yield found


def check(source: Source, found: BpfObject) -> None:
    """Raises InvalidInput when the object lacks a name, or a constant cannot hold its value."""
    what = source.object_path
    require_name(source.program, found.program_names(), f"the program {source.program} in {what}")
    for name in source.maximum_entries:
        require_name(name, found.map_names(), f"the map {name} in {what}")
    sizes = found.constant_sizes()
    for name, value in source.constants.items():
        require_name(name, sizes, f"the constant {name} in {what}")
        bits = sizes[name] * 8
        if not 0 <= value < 1 << bits:
            raise InvalidInput(
                wanted=f"the constant {name} from 0 to {(1 << bits) - 1}",
                found=str(value),
                remedy="correct the value; a negative one is written as its two's complement",
            )


def require_name(name: str, names: Iterable[str], wanted: str) -> None:
    """Raises InvalidInput with the near names when a name is not among those there are."""
    known = tuple(names)
    if name not in known:
        raise InvalidInput(
            wanted=wanted,
            found=f"no such name; there are: {ownership.near(name, known)}",
            remedy="correct the name",
        )


def program_facts(descriptor: int) -> ProgramFacts:
    """Returns what an open program is, as the kernel has it."""
    program = attach.program_information(descriptor)
    constants = hashlib.sha256()
    declared: list[attach.MapInformation] = []
    for identifier in program.map_ids:
        opened_map = attach.open_map(identifier)
        try:
            entry = attach.map_information(opened_map)
            if INTERNAL_MARK not in entry.name:
                declared.append(entry)
            elif entry.flags & READ_ONLY_FLAG:
                constants.update(only_value(opened_map, entry.value_size))
        finally:
            os.close(opened_map)
    return ProgramFacts(
        identifier=program.identifier,
        kind=program.kind,
        tag=program.tag,
        constants=constants.hexdigest()[:DIGEST_DIGITS],
        maps=tuple(sorted(declared, key=lambda entry: (entry.name, entry.identifier))),
    )


def only_value(descriptor: int, size: int) -> bytes:
    """Returns the one value of a data section's map."""
    # Not as a context manager, since the descriptor is the caller's.
    section: maps.Map[ctypes.c_uint32, ctypes.Array[ctypes.c_uint8]] = maps.Map(
        descriptor, ctypes.c_uint32, ctypes.c_uint8 * size
    )
    value = section.read(ctypes.c_uint32(0))
    return b"" if value is None else bytes(value)
