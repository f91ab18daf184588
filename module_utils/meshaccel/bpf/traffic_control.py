# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs at a device's clsact hooks: tc-bpf(8), libbpf's bpf_tc_* for what is changed.

Ours is the filter at PRIORITY with HANDLE whose program's name begins with
NAME_PREFIX. Looking is raw netlink: filters of every kind are seen, and libbpf
prints nothing. clsact is added once and stays through every switch: adding or
removing it stops the device's queues for a moment, in which packets are lost.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import NotOurs
from ..system import netlink
from . import attach as programs
from . import libbpf

PRIORITY = 49000
HANDLE = 1
NAME_PREFIX = "meshaccel_"

#: include/uapi/linux/rtnetlink.h and pkt_sched.h.
GET_QDISC = 38
GET_FILTER = 46
CLSACT_PARENT = 0xFFFFFFF1
KIND = 1
OPTIONS = 2
CHAIN = 11
SHARED_BLOCKS = (13, 14)
BPF_NAME = 7
BPF_IDENTIFIER = 11
#: struct tcmsg: family, two paddings, device, handle, parent, information.
MESSAGE = struct.Struct("=BBHiIII")
#: enum bpf_attach_type, from Linux 6.6 on.
TCX_INGRESS = 46
TCX_EGRESS = 47
#: enum bpf_tc_flags.
REPLACE = 1
BOTH_POINTS = 3


class Direction(str, enum.Enum):
    """Where at a device."""

    INGRESS = "ingress"
    EGRESS = "egress"

    @property
    def attach_point(self) -> int:
        """Of enum bpf_tc_attach_point."""
        return 1 if self is Direction.INGRESS else 2

    @property
    def parent(self) -> int:
        """The parent of the filters there (TC_H_MIN_INGRESS, TC_H_MIN_EGRESS)."""
        return 0xFFFFFFF2 if self is Direction.INGRESS else 0xFFFFFFF3

    @property
    def attach_type(self) -> int:
        """Of enum bpf_attach_type, for what is attached by tcx."""
        return TCX_INGRESS if self is Direction.INGRESS else TCX_EGRESS


@dataclass(frozen=True)
class Filter:
    """A filter at a device; ``name`` and ``program_id`` are of its program, if it is a BPF one."""

    direction: Direction
    kind: str
    priority: int
    handle: int
    name: str = ""
    program_id: int = 0
    chain: int = 0

    @property
    def ours(self) -> bool:
        """True when it carries our mark."""
        return (
            self.kind == "bpf"
            and (self.chain, self.priority, self.handle) == (0, PRIORITY, HANDLE)
            and self.name.startswith(NAME_PREFIX)
        )

    def __str__(self) -> str:
        program = f" {self.name or 'unnamed'} (program {self.program_id})" if self.program_id else ""
        chain = f" chain {self.chain}" if self.chain else ""
        return f"{self.direction.value}{chain} priority {self.priority} {self.kind}{program}"


@dataclass(frozen=True)
class Hook:
    """A device's clsact: ours in both directions, and what others have there, in words.

    ``occupant`` is what holds clsact's place, in words, where nothing of ours can be: an ingress qdisc.
    """

    clsact: bool
    ingress: Filter | None = None
    egress: Filter | None = None
    foreign: tuple[str, ...] = ()
    occupant: str = ""

    def filter(self, direction: Direction) -> Filter | None:
        """Returns our filter in a direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


class _LibbpfHook(ctypes.Structure):
    """struct bpf_tc_hook of libbpf.h, as 0.4 has it; libbpf tells versions apart by the size."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("device_index", ctypes.c_int),
        ("attach_point", ctypes.c_uint),
        ("parent", ctypes.c_uint32),
    ]


class _LibbpfOptions(ctypes.Structure):
    """struct bpf_tc_opts of libbpf.h."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("program", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    ]


def observe(device_index: int) -> Hook:
    """Looks at a device; raises OSError with ENODEV when it is gone."""
    with netlink.Session(netlink.ROUTE) as session:
        qdisc = qdisc_of(session, device_index)
        filters = tuple(filters_of(session, device_index, qdisc))
    ours = {each.direction: each for each in filters if each.ours}
    # Several rows of one filter, u32's, are named once.
    foreign = dict.fromkeys(str(each) for each in filters if not each.ours)
    occupant = f"qdisc {qdisc}" if qdisc not in ("", "clsact") else ""
    return Hook(
        clsact=qdisc == "clsact",
        ingress=ours.get(Direction.INGRESS),
        egress=ours.get(Direction.EGRESS),
        foreign=(*((occupant,) if occupant else ()), *foreign, *tcx_programs(device_index)),
        occupant=occupant,
    )


def add_clsact(device_index: int) -> None:
    """Adds clsact unless it is there; raises NotOurs when another qdisc holds its place."""
    with netlink.Session(netlink.ROUTE) as session:
        qdisc = qdisc_of(session, device_index)
    if qdisc == "clsact":
        return
    if qdisc:
        raise NotOurs(
            wanted=f"clsact at the device {device_index}",
            found=f"the qdisc {qdisc}, which takes its place",
            remedy="have its owner change it to clsact, without shared blocks, or leave the device out",
        )
    hook = _hook(device_index, BOTH_POINTS)
    libbpf.library().call(
        f"add clsact to the device {device_index}", "bpf_tc_hook_create", ctypes.byref(hook)
    )


def remove_clsact_if_empty(device_index: int) -> bool:
    """Removes clsact when no filter of anybody is left there; returns whether it did."""
    with netlink.Session(netlink.ROUTE) as session:
        qdisc = qdisc_of(session, device_index)
        if qdisc != "clsact" or any(filters_of(session, device_index, qdisc)):
            return False
    hook = _hook(device_index, BOTH_POINTS)
    libbpf.library().call(
        f"remove clsact from the device {device_index}", "bpf_tc_hook_destroy", ctypes.byref(hook)
    )
    return True


def attach(device_index: int, direction: Direction, program: int) -> None:
    """Makes an open program the one at a hook; one of ours there is replaced, with no moment of neither.

    Needs clsact. Raises NotOurs, naming what holds our priority, when it is somebody else's.
    """
    present = _at_our_priority(device_index, direction)
    if present is not None and not present.ours:
        raise NotOurs(
            wanted=f"a filter at {direction.value} of the device {device_index}, priority {PRIORITY}",
            found=str(present),
            remedy="have its owner take another priority, or leave the device out",
        )
    hook = _hook(device_index, direction.attach_point)
    options = _options(program=program, flags=0 if present is None else REPLACE)
    libbpf.library().call(
        f"attach to {direction.value} of the device {device_index}",
        "bpf_tc_attach",
        ctypes.byref(hook),
        ctypes.byref(options),
    )


def detach(device_index: int, direction: Direction) -> None:
    """Removes our filter; nothing of ours there, or no such device, is fine. clsact stays."""
    try:
        present = _at_our_priority(device_index, direction)
        if present is None or not present.ours:
            return
        hook, options = _hook(device_index, direction.attach_point), _options()
        libbpf.library().call(
            f"detach from {direction.value} of the device {device_index}",
            "bpf_tc_detach",
            ctypes.byref(hook),
            ctypes.byref(options),
        )
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise


def qdisc_of(session: netlink.Session, device_index: int) -> str:
    """Returns the kind of qdisc at clsact's place, or nothing; raises OSError when the device is gone."""
    request = MESSAGE.pack(0, 0, 0, device_index, 0, CLSACT_PARENT, 0)
    try:
        # The answer is sent to those that follow changes; to the asker, as their echo.
        answers = session.request(GET_QDISC, request, netlink.ECHO)
    except OSError as error:
        # EINVAL, or on newer kernels no answer: there was one, and what stands for none has nothing to tell.
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return ""
        raise
    if not answers:
        return ""
    found = netlink.attributes(answers[0].payload[MESSAGE.size :])
    shared = " with a shared block" if any(kind in found for kind in SHARED_BLOCKS) else ""
    return netlink.text(found[KIND]) + shared


def filters_of(session: netlink.Session, device_index: int, qdisc: str) -> Iterator[Filter]:
    """Yields the filters of everybody at a device with this qdisc."""
    directions = tuple(Direction) if qdisc.startswith("clsact") else (Direction.INGRESS,) if qdisc else ()
    for direction in directions:
        request = MESSAGE.pack(0, 0, 0, device_index, 0, direction.parent, 0)
        answers = session.dump(GET_FILTER, request)
        yield from without_heads([parse_filter(answer.payload, direction) for answer in answers])


def parse_filter(payload: bytes, direction: Direction) -> Filter:
    """Parses one message of a dump of filters."""
    _, _, _, _, handle, _, information = MESSAGE.unpack_from(payload)
    found = netlink.attributes(payload[MESSAGE.size :])
    kind = netlink.text(found[KIND])
    options = netlink.attributes(found.get(OPTIONS, b"")) if kind == "bpf" else {}
    return Filter(
        direction=direction,
        kind=kind,
        priority=information >> 16,
        handle=handle,
        # libbpf writes name:[id], tc file:[section].
        name=netlink.text(options.get(BPF_NAME, b"")),
        program_id=netlink.number(options.get(BPF_IDENTIFIER, b"")),
        chain=netlink.number(found.get(CHAIN, b"")),
    )


def without_heads(rows: list[Filter]) -> Iterator[Filter]:
    """Yields the filters without the row that stands for all of a priority, if that has others."""
    places = {(row.chain, row.priority) for row in rows if row.handle}
    return (row for row in rows if row.handle or (row.chain, row.priority) not in places)


def tcx_programs(device_index: int) -> Iterator[str]:
    """Yields what is attached by tcx (Linux 6.6), which runs before clsact's filters and may end there."""
    for direction in Direction:
        try:
            identifiers = programs.queried(device_index, direction.attach_type, f"device {device_index}")
        except libbpf.BpfError as error:
            if error.errno == errno.EINVAL:
                return
            raise
        for identifier in identifiers:
            yield f"{direction.value} tcx {programs.program_name(identifier)}"


def _at_our_priority(device_index: int, direction: Direction) -> Filter | None:
    """Returns who is there, somebody else before ours."""
    with netlink.Session(netlink.ROUTE) as session:
        filters = [
            each
            for each in filters_of(session, device_index, qdisc_of(session, device_index))
            if each.direction is direction and each.priority == PRIORITY and not each.chain
        ]
    return min(filters, key=lambda each: each.ours, default=None)


def _hook(device_index: int, attach_point: int) -> _LibbpfHook:
    return _LibbpfHook(ctypes.sizeof(_LibbpfHook), device_index, attach_point, 0)


def _options(program: int = 0, flags: int = 0) -> _LibbpfOptions:
    return _LibbpfOptions(
        size=ctypes.sizeof(_LibbpfOptions), program=program, flags=flags, handle=HANDLE, priority=PRIORITY
    )
