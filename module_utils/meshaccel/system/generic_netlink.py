# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Generic netlink families by the standard library alone: genetlink(7), linux/genetlink.h."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from .netlink import GENERIC, Session, attribute, attributes, number

#: struct genlmsghdr: command, version, reserved.
HEADER = struct.Struct("=BBH")
CONTROL, GET_FAMILY = 16, 3
FAMILY_ID, FAMILY_NAME = 1, 2
#: In an attribute's type: its value is attributes.
NESTED = 0x8000


class GenericNetlink:
    """A socket for one family of generic netlink; a context manager.

    Raises FileNotFoundError when the kernel has no such family, and OSError with
    what else the kernel answers.
    """

    def __init__(self, family: str) -> None:
        """Opens the socket and asks for the family's number."""
        self._session = Session(GENERIC)
        self._family = CONTROL
        try:
            answer = self.request(GET_FAMILY, attribute(FAMILY_NAME, family.encode() + b"\0"))
        except BaseException:
            self._session.__exit__()
            raise
        self._family = number(attributes(answer)[FAMILY_ID])

    def __enter__(self) -> GenericNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.__exit__()

    def request(self, command: int, payload: bytes = b"") -> bytes:
        """Asks for one thing; returns the attributes of the answer."""
        return self._session.request(self._family, headed(command, payload))[0].payload[HEADER.size :]

    def dump(self, command: int, payload: bytes = b"") -> Iterator[bytes]:
        """Asks for all of a kind; yields the attributes of each."""
        for message in self._session.dump(self._family, headed(command, payload)):
            yield message.payload[HEADER.size :]


def headed(command: int, payload: bytes) -> bytes:
    """Returns a request of version 1, which all families have."""
    return HEADER.pack(command, 1, 0) + payload


def native(value: int, length: int) -> bytes:
    """Returns a number of so many bytes in the machine's own byte order."""
    return value.to_bytes(length, sys.byteorder)


def network_number(value: bytes) -> int:
    """Returns an unsigned number of network byte order."""
    return int.from_bytes(value, "big")
