# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Generic netlink by the standard library alone, for what is only read: genetlink(7), netlink(7).

A netlink library takes longer to import than a run that changes nothing may take.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from types import TracebackType

NETLINK_GENERIC = 16
#: linux/netlink.h
REQUEST, DUMP = 0x1, 0x300
ERROR, DONE = 0x2, 0x3
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
STATUS = struct.Struct("=i")
#: The upper two bits of an attribute's type say how its value is written.
TYPE_MASK = 0x3FFF
NESTED = 0x8000
#: linux/genetlink.h
GENERIC_HEADER = struct.Struct("=BBH")
CONTROL_FAMILY, GET_FAMILY = 16, 3
FAMILY_ID, FAMILY_NAME = 1, 2
#: The kernel puts at most 32 KiB of a dump into one datagram.
RECEIVE_BYTES = 65536
RECEIVE_SECONDS = 20.0


class GenericNetlink:
    """A socket for one generic netlink family.

    Raises FileNotFoundError when the kernel has no such family. The methods raise
    OSError with what the kernel answers, TimeoutError when it does not.
    """

    def __init__(self, family: str) -> None:
        """Opens the socket and asks for the family's number."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC
        )
        self._sequence = 0
        try:
            self._socket.settimeout(RECEIVE_SECONDS)
            self._socket.bind((0, 0))
            name = attribute(FAMILY_NAME, family.encode() + b"\0")
            answer = next(self._exchange(CONTROL_FAMILY, GET_FAMILY, 0, name))
        except BaseException:
            self._socket.close()
            raise
        self._family = number(attributes(answer)[FAMILY_ID])

    def __enter__(self) -> GenericNetlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, command: int, payload: bytes = b"") -> bytes:
        """Asks for one thing; returns the attributes of the answer."""
        return next(self._exchange(self._family, command, 0, payload))

    def dump(self, command: int, payload: bytes = b"") -> Iterator[bytes]:
        """Asks for all of a kind; yields the attributes of each."""
        return self._exchange(self._family, command, DUMP, payload)

    def _exchange(self, family: int, command: int, flags: int, payload: bytes) -> Iterator[bytes]:
        self._sequence += 1
        body = GENERIC_HEADER.pack(command, 1, 0) + payload
        header = HEADER.pack(HEADER.size + len(body), family, REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for kind, message in messages(self._socket.recv(RECEIVE_BYTES), self._sequence):
                if kind in (ERROR, DONE):
                    require_success(message)
                    return
                yield message[GENERIC_HEADER.size :]


def messages(datagram: bytes, sequence: int) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of the messages that answer the request of this sequence number."""
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, kind, _, answered, _ = HEADER.unpack_from(datagram, offset)
        if answered == sequence:
            yield kind, datagram[offset + HEADER.size : offset + length]
        offset += aligned(max(length, HEADER.size))


def require_success(body: bytes) -> None:
    """Raises OSError when the end of an answer tells an error; the number is negative there."""
    status = STATUS.unpack_from(body)[0] if len(body) >= STATUS.size else 0
    if status:
        raise OSError(-status, os.strerror(-status))


def attributes(data: bytes) -> dict[int, bytes]:
    """Returns the values of attributes by their type; a type that comes twice has its last value."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        found[kind & TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += aligned(max(length, ATTRIBUTE.size))
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Returns one attribute with its header, padded."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(aligned(length) - length)


def aligned(length: int) -> int:
    """Rounds up to the four bytes that messages and attributes begin at."""
    return (length + 3) & ~3


def number(value: bytes) -> int:
    """Returns an unsigned number of the machine's own byte order."""
    return int.from_bytes(value, sys.byteorder)


def native(value: int, length: int) -> bytes:
    """Returns a number of so many bytes in the machine's own byte order."""
    return value.to_bytes(length, sys.byteorder)


def network_number(value: bytes) -> int:
    """Returns an unsigned number of network byte order."""
    return int.from_bytes(value, "big")


def text(value: bytes) -> str:
    """Returns a string that the kernel ended with a zero byte."""
    return value.split(b"\0", 1)[0].decode("ascii", "replace")
