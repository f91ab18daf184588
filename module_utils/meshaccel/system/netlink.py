# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Netlink by the standard library: requests, dumps, events and attributes.

The format is that of the kernel's Documentation/userspace-api/netlink/intro.rst.
pyroute2 costs a run 164 ms to import, which reading does not need.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import MeshaccelError

#: Protocols of AF_NETLINK, include/uapi/linux/netlink.h.
ROUTE = 0
GENERIC = 16

REQUEST = 0x1
ACKNOWLEDGE = 0x4
ECHO = 0x8
DUMP = 0x300
#: In an answer: what is dumped changed meanwhile.
DUMP_INTERRUPTED = 0x10
#: In an error: the request is left out of it, attributes with words follow.
CAPPED = 0x100
HAS_ATTRIBUTES = 0x200
#: Types of messages below this number are netlink's own.
ERROR = 2
DONE = 3
FIRST_OTHER = 16

#: struct nlmsghdr: length, type, flags, sequence, port.
HEADER = struct.Struct("=IHHII")
#: struct nlattr: length, type.
ATTRIBUTE = struct.Struct("=HH")
#: The head of struct nlmsgerr, and of the end of a dump: an error's number, negative.
CODE = struct.Struct("=i")
#: The two highest bits of an attribute's type are flags: nested, network byte order.
ATTRIBUTE_TYPE = 0x3FFF
ERROR_TEXT = 1
ALIGNMENT = 4

SOCKET_LEVEL = 270
EXTENDED_ACKNOWLEDGE = 11
BUFFER_BYTES = 256 << 10
ANSWER_SECONDS = 10.0
DUMP_TRIES = 5


class Message(NamedTuple):
    """One message: type, flags, and what follows its header."""

    kind: int
    flags: int
    payload: bytes


class Session:
    """A netlink socket in the calling thread's network namespace; a context manager."""

    def __init__(self, protocol: int) -> None:
        """Opens the socket of a protocol: ROUTE or GENERIC."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.bind((0, 0))
        with contextlib.suppress(OSError):
            # Before 4.12 errors have no words.
            self._socket.setsockopt(SOCKET_LEVEL, EXTENDED_ACKNOWLEDGE, 1)
        self._sequence = 0
        #: One for all answers: a new one of this size costs more than the kernel's own work.
        self._buffer = bytearray(BUFFER_BYTES)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, kind: int, payload: bytes, flags: int = 0) -> tuple[Message, ...]:
        """Sends one message and returns the answers; raises OSError with the kernel's words."""
        return tuple(self._exchange(kind, ACKNOWLEDGE | flags, payload))

    def ask(self, kind: int, payload: bytes) -> Message:
        """Sends one message that always has one answer, and returns it; raises OSError as request()."""
        return next(self._exchange(kind, 0, payload))

    def dump(self, kind: int, payload: bytes) -> tuple[Message, ...]:
        """Returns all objects of a kind, as they were at one moment; raises OSError, MeshaccelError."""
        for _ in range(DUMP_TRIES):
            found = tuple(self._exchange(kind, DUMP, payload))
            if not any(message.flags & DUMP_INTERRUPTED for message in found):
                return found
        raise MeshaccelError(
            wanted="to read a list of the kernel's network objects",
            found=f"it changed during each of {DUMP_TRIES} tries",
            remedy="run again when fewer devices and routes come and go",
        )

    def _exchange(self, kind: int, flags: int, payload: bytes) -> Iterator[Message]:
        self._sequence += 1
        length = HEADER.size + len(payload)
        header = HEADER.pack(length, kind, REQUEST | flags, self._sequence, 0)
        self._socket.send(header + payload)
        while True:
            for sequence, message in parse(self._receive()):
                # An answer to an earlier request, whose reader gave up.
                if sequence != self._sequence:
                    continue
                if message.kind >= FIRST_OTHER:
                    yield message
                elif message.kind in (DONE, ERROR):
                    raise_error(message)
                    return

    def _receive(self) -> bytes:
        length, _, flags, _ = self._socket.recvmsg_into([self._buffer])
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "a netlink message is longer than expected")
        return bytes(self._buffer[:length])


class Events:
    """What the kernel tells of by itself, in the calling thread's network namespace; a context manager."""

    def __init__(self, protocol: int, groups: int) -> None:
        """Subscribes to multicast groups, given as their mask."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._socket.bind((0, groups))

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Returns the descriptor, for select."""
        return self._socket.fileno()

    def wait(self, seconds: float) -> bool:
        """Waits until something happens; returns False when nothing did in that time.

        Takes all events that are there, so that a burst is reported once.
        """
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take()
        return True

    def _take(self) -> None:
        try:
            self._socket.recv(BUFFER_BYTES)
        except OSError as error:
            # Some were lost, which is an event as well.
            if error.errno != errno.ENOBUFS:
                raise


def parse(data: bytes) -> Iterator[tuple[int, Message]]:
    """Yields (sequence number, message) of what a socket has received."""
    while len(data) >= HEADER.size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data)
        yield sequence, Message(kind, flags, data[HEADER.size : length])
        data = data[aligned(max(length, HEADER.size)) :]


def raise_error(message: Message) -> None:
    """Raises OSError for an error's number; 0, and the end of a dump, are none."""
    (code,) = CODE.unpack_from(message.payload) if len(message.payload) >= CODE.size else (0,)
    if code:
        raise OSError(-code, f"{os.strerror(-code)}{words_of(message)}")


def words_of(message: Message) -> str:
    """Returns the words of an error, after a colon; nothing when it has none."""
    if message.kind != ERROR or not message.flags & HAS_ATTRIBUTES:
        return ""
    repeated = HEADER.size if message.flags & CAPPED else HEADER.unpack_from(message.payload, CODE.size)[0]
    words = attributes(message.payload[CODE.size + aligned(repeated) :]).get(ERROR_TEXT, b"")
    return f": {text(words)}" if words else ""


def attributes(data: bytes) -> dict[int, bytes]:
    """Returns {type: value} of a row of attributes, without the types' flags."""
    found: dict[int, bytes] = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        found[kind & ATTRIBUTE_TYPE] = data[ATTRIBUTE.size : length]
        data = data[aligned(max(length, ATTRIBUTE.size)) :]
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Returns one attribute as bytes, padded."""
    length = ATTRIBUTE.size + len(value)
    return (ATTRIBUTE.pack(length, kind) + value).ljust(aligned(length), b"\0")


def number(value: bytes) -> int:
    """Returns an attribute's number, unsigned, of the host's byte order."""
    return int.from_bytes(value, sys.byteorder)


def text(value: bytes) -> str:
    """Returns an attribute's text, up to its zero byte."""
    return value.partition(b"\0")[0].decode(errors="replace")


def aligned(length: int) -> int:
    """Returns a length rounded up to what netlink aligns to."""
    return -(-length // ALIGNMENT) * ALIGNMENT
