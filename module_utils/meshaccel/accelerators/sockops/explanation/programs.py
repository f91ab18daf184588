# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which programs have sockets open, and what /proc tells of how they use them.

Sources: proc(5), proc_pid_syscall(5); system call numbers of
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from ....system import processes
from .model import Program
from .words import Use

SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
PIPE_LINK = re.compile(r"pipe:\[\d+\]")
MSG_WAITALL = 0x100
#: machine: (number of recvfrom, number of recvmsg).
RECEIVING_CALLS = {"x86_64": (45, 47), "aarch64": (207, 212), "riscv64": (207, 212)}
#: Which argument has the flags.
FLAGS_OF_RECVFROM, FLAGS_OF_RECVMSG = 3, 2
HAPROXY = "haproxy"
SOCKET_PROXY = "systemd-socket-proxyd"
SPLICE_OPTION = re.compile(r"^\s*option\s+splice-(auto|request|response)\b", re.MULTILINE)
#: A program that wakes itself has one pipe with both ends open; one that splices has more.
PIPES_OF_ITS_OWN = 2


def owners(inodes: Iterable[int]) -> dict[int, tuple[Program, ...]]:
    """Returns the programs that have each of these sockets open."""
    wanted = frozenset(inodes)
    found: dict[int, list[Program]] = {}
    for process_id in processes.everyone():
        links = open_files(process_id)
        numbers = socket_inodes(links.values()) & wanted
        if not numbers:
            continue
        program = look_at(process_id, links)
        for inode in numbers:
            found.setdefault(inode, []).append(program)
    return {inode: tuple(programs) for inode, programs in found.items()}


def open_files(process_id: int) -> dict[int, str]:
    """Returns what a process's descriptors are, as /proc has it; empty when it has ended."""
    directory = f"{processes.PROCESSES}/{process_id}/fd"
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"{directory}/{name}")
    return found


def socket_inodes(links: Iterable[str]) -> frozenset[int]:
    """Returns the inode numbers of the sockets among descriptors."""
    return frozenset(int(match[1]) for link in links if (match := SOCKET_LINK.fullmatch(link)))


def look_at(process_id: int, links: dict[int, str]) -> Program:
    """Returns a process with what can be seen of its use of sockets."""
    name = program_name(process_id)
    return Program(
        process_id=process_id,
        name=name,
        uses=frozenset(splicing(process_id, name, links)),
        waits_for_all=frozenset(waiting_for_all(process_id, links)),
    )


def program_name(process_id: int) -> str:
    """Returns the name of a process's executable."""
    try:
        path = os.readlink(f"{processes.PROCESSES}/{process_id}/exe")
    except OSError:
        return "unknown"
    name = os.path.basename(path)
    # What the kernel adds once the file is gone, as after an upgrade.
    return name.removesuffix(" (deleted)")


def splicing(process_id: int, name: str, links: dict[int, str]) -> Iterator[Use]:
    """Yields the use of splice() if there are signs of it; the kernel shows none of the call itself."""
    if name == SOCKET_PROXY:
        yield Use.SPLICE
        return
    if name == HAPROXY:
        if any(SPLICE_OPTION.search(text) for text in haproxy_configurations(process_id)):
            yield Use.SPLICE
        return
    pipes = Counter(link for link in links.values() if PIPE_LINK.fullmatch(link))
    if sum(ends >= 2 for ends in pipes.values()) >= PIPES_OF_ITS_OWN:
        yield Use.PERHAPS_SPLICE


def haproxy_configurations(process_id: int) -> Iterator[str]:
    """Yields the texts of the files that haproxy's command line names (haproxy(1), -f)."""
    arguments = command_line(process_id)
    for option, value in zip(arguments, arguments[1:]):
        if option == "-f":
            # Inside its own root; a relative name is below where it was started, as the kernel has it.
            base = "root" if os.path.isabs(value) else "cwd"
            path = f"{processes.PROCESSES}/{process_id}/{base}/{value.lstrip('/')}"
            yield from configuration_files(path)


def configuration_files(path: str) -> Iterator[str]:
    """Yields the text of a file, or of the files in a directory."""
    names = [path]
    if os.path.isdir(path):
        names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
    for name in names:
        with contextlib.suppress(OSError), open(name, encoding="utf-8", errors="replace") as stream:
            yield stream.read()


def command_line(process_id: int) -> list[str]:
    """Returns a process's arguments; empty when it has ended."""
    try:
        with open(f"{processes.PROCESSES}/{process_id}/cmdline", "rb") as stream:
            return [os.fsdecode(word) for word in stream.read().split(b"\0")]
    except OSError:
        return []


def waiting_for_all(process_id: int, links: dict[int, str]) -> Iterator[int]:
    """Yields the inode numbers of the sockets at which threads wait in recv with MSG_WAITALL."""
    directory = f"{processes.PROCESSES}/{process_id}/task"
    try:
        threads = os.listdir(directory)
    except OSError:
        return
    for thread in threads:
        with contextlib.suppress(OSError), open(f"{directory}/{thread}/syscall", encoding="ascii") as stream:
            descriptor = waited_for(stream.read(), os.uname().machine)
            if descriptor is not None:
                yield from socket_inodes([links.get(descriptor, "")])


def waited_for(call: str, machine: str) -> int | None:
    """Returns the descriptor that a blocked thread waits at in MSG_WAITALL, if it does."""
    words = call.split()
    receive_from, receive_message = RECEIVING_CALLS.get(machine, (None, None))
    if len(words) < 1 + FLAGS_OF_RECVFROM or not words[0].isdigit():
        return None
    flags_at = {receive_from: FLAGS_OF_RECVFROM, receive_message: FLAGS_OF_RECVMSG}.get(int(words[0]))
    if flags_at is None:
        return None
    arguments = [int(word, 16) for word in words[1:]]
    return arguments[0] if arguments[flags_at] & MSG_WAITALL else None
