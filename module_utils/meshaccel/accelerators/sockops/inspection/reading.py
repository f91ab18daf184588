# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads the node's TCP sockets, in every network namespace that matters."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ....bpf import attach, layouts, libbpf
from ....bpf.loaders import Loader
from ....bpf.object_file import not_permitted
from ....bpf.ownership import opened
from ....errors import Unsupported
from ....system import cgroups, network_namespaces, processes
from ..observe import Loaded, Places
from . import layout
from .sockets import Address, Handshake, InspectedSocket, TrackedState


def inspect(
    places: Places, object_path: str, loader: Loader, namespaces: Iterable[str]
) -> list[InspectedSocket]:
    """Returns the TCP sockets of these network namespaces (files that name them) that carry data.

    Raises Unsupported when the kernel does not take the program (5.12 and newer
    do), BpfError when sockops is not loaded. A namespace that is gone is left out.
    """
    found: list[InspectedSocket] = []
    with inspection_program(places, object_path, loader) as program:
        for namespace in namespaces:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with network_namespaces.entered(namespace):
                    output = attach.run_iterator(program)
                found += parse(output)
    return found


def namespaces_of(loaded: Loaded, hierarchy: cgroups.Hierarchy) -> list[str]:
    """Returns the network namespaces of the processes in the opted-in cgroups."""
    directories = [hierarchy.absolute(entry.path) for entry in loaded.attachments if entry.path is not None]
    return list(network_namespaces.distinct(processes.below(directories)).values())


def namespaces_of_everyone() -> list[str]:
    """Returns the network namespaces of all processes."""
    return list(network_namespaces.distinct(processes.everyone()).values())


@contextmanager
def inspection_program(places: Places, object_path: str, loader: Loader) -> Iterator[int]:
    """Loads the program beside the accelerator's pinned state; it goes again with the block."""
    layouts.check(object_path, layout.STRUCTURES)
    with opened(places.map(layout.STATES_MAP)) as states, loader.open(object_path) as candidate:
        candidate.reuse_map(layout.STATES_MAP, states)
        try:
            candidate.load()
        except libbpf.BpfError as error:
            if error.errno == errno.EPERM:
                raise not_permitted(object_path, error) from error
            raise Unsupported(
                wanted=f"the kernel to load {object_path}",
                found=str(error),
                remedy="to look at sockets takes Linux 5.12 or newer",
            ) from error
        yield candidate.program_descriptor(layout.PROGRAM)


def parse(output: bytes) -> list[InspectedSocket]:
    """Returns the sockets in what the iterator wrote."""
    size = ctypes.sizeof(layout.Record)
    return [
        inspected(layout.Record.from_buffer_copy(output, offset)) for offset in range(0, len(output), size)
    ]


def inspected(record: layout.Record) -> InspectedSocket:
    """Returns one record as a socket."""
    flags: int = record.flags
    return InspectedSocket(
        cookie=record.cookie,
        socket=record.socket,
        cgroup_id=record.cgroup_id,
        inode=record.inode,
        network_namespace=record.network_namespace,
        family=record.family,
        tcp_state=record.tcp_state,
        local=Address(bytes(record.local_address), record.local_port),
        remote=Address(bytes(record.remote_address), record.remote_port),
        bytes_received=record.bytes_received,
        bytes_sent=record.bytes_sent,
        receive_sequence=record.receive_sequence,
        send_base_sequence=record.send_base_sequence,
        next_receive_sequence=record.next_receive_sequence,
        copied_sequence=record.copied_sequence,
        write_sequence=record.write_sequence,
        unacknowledged_sequence=record.unacknowledged_sequence,
        receive_memory=record.receive_memory,
        receive_low_water_mark=record.receive_low_water_mark,
        upper_layer_protocol=record.upper_layer_protocol.decode(errors="replace"),
        multipath=bool(flags & layout.MULTIPATH),
        cork=bool(flags & layout.CORK),
        no_delay=bool(flags & layout.NO_DELAY),
        zero_copy=bool(flags & layout.ZERO_COPY),
        urgent_data=bool(flags & layout.URGENT),
        repair=bool(flags & layout.REPAIR),
        in_socket_map=bool(flags & layout.SOCKET_MAP),
        state=tracked(record.state) if flags & layout.STATE else None,
    )


def tracked(state: ctypes.Structure) -> TrackedState:
    """Returns what sockops remembers of a socket."""
    return TrackedState(
        status=state.status,
        reason=state.reason,
        last_message=state.last_message,
        policy=state.policy,
        peer_policy=state.peer_policy,
        peer_cookie=state.peer_cookie,
        handshake=Handshake(state.handshake.receive_sequence, state.handshake.send_sequence),
        redirected_bytes=state.redirected_bytes,
        tcp_bytes=state.tcp_bytes,
    )
