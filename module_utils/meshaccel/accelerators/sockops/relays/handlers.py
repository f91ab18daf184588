# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out the actions of relays on the kernel.

As those of the accelerator, every handler accepts that its work is already
done or half done.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ....bpf import attach, libbpf, maps
from ....bpf.object_file import ObjectFile
from ....bpf.objects import BpfObject
from ....bpf.ownership import opened
from ....bpf.pins import make_pin_directory, remove_tree
from ....engine import Handler
from ....errors import Unsupported
from ....model import Json
from ....system import cgroups
from . import layout
from .desired import MOST_RELAYS, Address, Relay, parse_relay
from .observe import LINKED_PROGRAMS, Places, names_in, pins_complete, read_digest, read_relays

ATTACH_TYPES = {
    "limit": attach.CGROUP_INET_INGRESS,
    "acknowledge": attach.CGROUP_INET_EGRESS,
    "connection": attach.CGROUP_SOCK_OPS,
}
#: Two sockets for each pair of joined connections, as for the accelerator's own.
SOCKETS_PER_CONNECTION = 2
ZERO = 0


class RelayHandlers:
    """The handlers of one run, on pins below those of the accelerator."""

    def __init__(self, accelerator_pins: str, hierarchy: cgroups.Hierarchy) -> None:
        """Binds the handlers to an installation."""
        self._places = Places.below(accelerator_pins)
        self._hierarchy = hierarchy

    def table(self) -> Mapping[str, Handler]:
        """Returns the handlers by kind of action."""
        return {
            "sockops.relays_load": self.load,
            "sockops.relays_unload": self.unload,
            "sockops.relays_load_programs": self.load_programs,
            "sockops.relays_switch": self.switch,
            "sockops.relays_discard": self.discard,
            "sockops.relays_attach": self.attach,
            "sockops.relays_detach": self.detach,
            "sockops.relays_write": self.write,
        }

    def load(self, arguments: Mapping[str, Json]) -> None:
        """Loads the object on the accelerator's switch and policies, with no relay yet."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        self.unload({})
        for directory in (self._places.root, self._places.maps, self._places.links, self._places.versions):
            make_pin_directory(directory)
        sockets = int(arguments["maximum_connections"]) * SOCKETS_PER_CONNECTION
        sizes = {"relay_sockets": sockets, "relay_ends": sockets}
        with self._loaded(wished, sizes, own_maps=()) as loaded:
            for name in layout.MAP_SIZES:
                maps.pin(loaded.map_descriptor(name), self._places.map(name))
            self._places.pin_programs(loaded, wished.digest, layout.PROGRAMS)
        self._run(wished.digest)

    def load_programs(self, arguments: Mapping[str, Json]) -> None:
        """Loads another version's programs on the maps there are."""
        wished = ObjectFile.given(arguments)
        wished.check_layout(layout.STRUCTURES)
        self.discard({"digest": wished.digest})
        with self._loaded(wished, {}, own_maps=tuple(layout.MAP_SIZES)) as loaded:
            self._places.pin_programs(loaded, wished.digest, layout.PROGRAMS)

    def switch(self, arguments: Mapping[str, Json]) -> None:
        """Puts a loaded version in the place of the running one.

        The tail-call table reaches joined connections; a link is swapped without
        a moment unattached.
        """
        digest = str(arguments["digest"])
        self._run(digest)
        for name in names_in(self._places.links):
            program = LINKED_PROGRAMS[name.partition("_")[2]]
            link_pin = os.path.join(self._places.links, name)
            with opened(link_pin) as link, opened(self._places.program(digest, program)) as descriptor:
                # A link outlives its cgroup, but the kernel swaps nothing there any more.
                if attach.link_information(link).cgroup_id:
                    attach.update_link(link, descriptor)

    def discard(self, arguments: Mapping[str, Json]) -> None:
        """Unpins a version's programs; the running version's stay."""
        digest = str(arguments["digest"])
        if digest != read_digest(self._places):
            remove_tree(self._places.programs(digest))

    def unload(self, _: Mapping[str, Json]) -> None:
        """Removes every pin: the cgroups are left, and joined connections part.

        With its pin the kernel empties the tail-call table, so each connection's
        bytes are its own server's again. The program that each still carries
        passes everything, and goes when it closes: to take it off earlier would
        throw away what its server has not read.
        """
        if pins_complete(self._places):
            self._forget(set(read_relays(self._places).values()))
        remove_tree(self._places.root)

    def attach(self, arguments: Mapping[str, Json]) -> None:
        """Attaches to a cgroup: the bounds on memory first, then what needs them."""
        identifier = int(arguments["cgroup_id"])
        path = self._hierarchy.absolute(str(arguments["path"]))
        digest = read_digest(self._places)
        make_pin_directory(self._places.links)
        for kind, name in LINKED_PROGRAMS.items():
            pin = self._places.link(identifier, kind)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(pin)
            with opened(self._places.program(digest, name)) as program:
                link = attach.link_cgroup(program, path, ATTACH_TYPES[kind])
            try:
                maps.pin(link, pin)
            finally:
                os.close(link)

    def detach(self, arguments: Mapping[str, Json]) -> None:
        """Detaches from a cgroup."""
        for kind in LINKED_PROGRAMS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._places.link(int(arguments["cgroup_id"]), kind))

    def write(self, arguments: Mapping[str, Json]) -> None:
        """Makes the table of relays this one. Those that stay keep index and connections."""
        wished = set(map(parse_relay, arguments["relays"]))
        present = read_relays(self._places)
        self._forget(set(present.values()) - wished)
        kept = {index for index, relay in present.items() if relay in wished}
        free = (index for index in range(MOST_RELAYS) if index not in kept)
        for relay in sorted(wished - set(present.values())):
            self._write_relay(next(free), relay)

    # ---- inside ----

    def _forget(self, gone: set[Relay]) -> None:
        """Takes relays out of the table, and addresses of any that was left half written."""
        stay = {
            address for relay in set(read_relays(self._places).values()) - gone for address in relay.addresses
        }
        with self._settings() as settings:
            for index, relay in read_relays(self._places).items():
                if relay in gone:
                    settings.write(ctypes.c_uint32(index), layout.Setting())
        with self._addresses() as addresses:
            for key in list(addresses.keys()):
                if Address(bytes(key.address), key.port) not in stay:
                    addresses.delete(key)

    def _write_relay(self, index: int, relay: Relay) -> None:
        """Fills one index: what it counted for another, its generation, then who finds it."""
        zeros = layout.Counters * libbpf.library().possible_cpus()
        with maps.Map.pinned(self._places.map("relay_counters"), ctypes.c_uint32, zeros) as counters:
            counters.write(ctypes.c_uint32(index), zeros())
        with self._settings() as settings:
            settings.write(ctypes.c_uint32(index), layout.Setting(generation=time.monotonic_ns()))
        with self._addresses() as addresses:
            for side, address in enumerate(relay.addresses):
                addresses.write(address_key(address), layout.Place(relay=index, side=side))

    @contextmanager
    def _loaded(
        self, wished: ObjectFile, sizes: Mapping[str, int], own_maps: tuple[str, ...]
    ) -> Iterator[BpfObject]:
        """Loads the object on maps there are; raises Unsupported with the verifier's reason."""
        pins = {name: self._places.map(name) for name in (*layout.SHARED_MAPS, *own_maps)}
        with contextlib.ExitStack() as stack:
            candidate = stack.enter_context(wished.loader.open(wished.path))
            for name, pin in pins.items():
                candidate.reuse_map(name, stack.enter_context(opened(pin)))
            for name, entries in sizes.items():
                candidate.set_maximum_entries(name, entries)
            try:
                candidate.load()
            except libbpf.BpfError as error:
                raise not_loadable(wished.path, error) from error
            yield candidate

    def _run(self, digest: str) -> None:
        """Makes a pinned version the one that bytes go through, and says so."""
        table = maps.Map.pinned(self._places.map("relay_logic"), ctypes.c_uint32, ctypes.c_uint32)
        with table, opened(self._places.program(digest, layout.LOGIC_PROGRAM)) as logic:
            table.write(ctypes.c_uint32(ZERO), ctypes.c_uint32(logic))
        stream_pin = self._places.program(digest, layout.STREAM_PROGRAM)
        with opened(stream_pin) as stream, opened(self._places.map("relay_sockets")) as sockets:
            attach.attach_to_socket_map(stream, sockets, attach.SK_SKB_STREAM_VERDICT)
        with maps.Map.pinned(self._places.map("relay_version"), ctypes.c_uint32, layout.Version) as version:
            version.write(ctypes.c_uint32(ZERO), layout.Version(object_digest=int(digest, 16)))

    def _addresses(self) -> maps.Map[layout.Address, layout.Place]:
        return maps.Map.pinned(self._places.map("relay_addresses"), layout.Address, layout.Place)

    def _settings(self) -> maps.Map[ctypes.c_uint32, layout.Setting]:
        return maps.Map.pinned(self._places.map("relay_settings"), ctypes.c_uint32, layout.Setting)


def address_key(address: Address) -> layout.Address:
    """Returns an address as the programs look it up."""
    words = (ctypes.c_uint32 * 4).from_buffer_copy(address.host)
    return layout.Address(address=words, port=address.port)


def not_loadable(path: str, error: libbpf.BpfError) -> Unsupported:
    """Builds the error for an object that the kernel does not take."""
    remedy = "leave sockops_relays empty on this node; 6.1 and newer are known to load them"
    if error.errno == errno.EPERM:
        remedy = "run as root with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
    return Unsupported(wanted=f"the kernel to load {path}", found=str(error), remedy=remedy)
