"""The programs of ipvs_bpf on packets that are handed to them; the test plays IPVS between them."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from meshaccel.accelerators.ipvs_bpf import layout
from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, Masquerade, ProgramMode
from meshaccel.bpf import maps
from meshaccel.bpf.objects import BpfObject
from meshaccel.system.network_namespaces import entered
from tests.support.namespaces import NetworkNamespace
from tests.support.program_runs import Outcome, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.packets import Packet

OBJECT = Path(__file__).resolve().parents[2] / "build" / "bpf" / "ipvs_bpf.bpf.o"
LOW, HIGH = 0x1000, 0x2000
DONE, REQUEST, MASQUERADED_REQUEST = LOW, HIGH, LOW | HIGH
FIRST_PORT, LAST_PORT = 2000, 2999
DEVICE = "towards"

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """What of the control map a test may want otherwise; seconds."""

    mode: ProgramMode = ProgramMode.ON
    accepted: int = 0
    fast_path: int = 0
    legacy: int = 60
    tcp: int = 900
    closing: int = 120
    closed: int = 10
    udp: int = 300


@dataclass
class Director:
    """Loaded programs, and a device with an address of each family that stands for clients."""

    loaded: BpfObject
    device: int
    service_port: int = 80
    #: Their sums differ from those of the clients: a checksum that is not changed shows.
    source: dict[int, str] = field(default_factory=lambda: {4: "10.2.9.77", 6: "fd02:1:a:b:c:d:e:4d"})

    # ---- what is declared ----

    def configure(self, **settings: Any) -> None:
        """Write the control entry, of Settings with these values."""
        wished = Settings(**settings)
        self.write_entry(
            "control",
            ctypes.c_uint32(0),
            layout.Control(
                mode=layout.MODE_NUMBERS[wished.mode],
                mark_low=LOW,
                mark_high=HIGH,
                mark_accepted=wished.accepted,
                fast_path_seconds=wished.fast_path,
                legacy_seconds=wished.legacy,
                tcp_seconds=wished.tcp,
                tcp_closing_seconds=wished.closing,
                tcp_closed_seconds=wished.closed,
                udp_seconds=wished.udp,
            ),
        )

    def declare(self, address: str, masquerade: Masquerade, protocol: int, port: int | None = None) -> None:
        """Make an address and port a service."""
        key = layout.ServiceKey(
            address=packed(address), port=socket.htons(port or self.service_port), protocol=protocol
        )
        self.write_entry("services", key, layout.Service(masquerade=layout.MASQUERADE_NUMBERS[masquerade]))

    def declare_local(self, network: str) -> None:
        """Make a network local."""
        self.write_entry(
            "local_networks", layout.packed_network(ipaddress.ip_network(network)), ctypes.c_uint32(1)
        )

    def declare_device(self, first_port: int = FIRST_PORT, last_port: int = LAST_PORT) -> None:
        """Give the device its addresses for clients, and the ports."""
        entry = layout.Device(
            source_ipv4=packed(self.source[4]),
            source_ipv6=packed(self.source[6]),
            first_port=first_port,
            last_port=last_port,
        )
        self.write_entry("devices", ctypes.c_uint32(self.device), entry)

    def remove_device(self) -> None:
        """Take the device's addresses away."""
        with self.open_map("devices", ctypes.c_uint32, layout.Device) as devices:
            devices.delete(ctypes.c_uint32(self.device))

    # ---- packets ----

    def take_in(self, packet: Packet | bytes, mark: int = 0, segment: int = 0) -> Outcome:
        """Run the ingress program; with a `segment` the device is to cut the packet into such."""
        return self._run(layout.INGRESS_PROGRAM, packet, mark, segment)

    def send_out(self, packet: Packet | bytes, mark: int) -> Outcome:
        """Run the egress program."""
        return self._run(layout.EGRESS_PROGRAM, packet, mark)

    def _run(self, program: str, packet: Packet | bytes, mark: int, segment: int = 0) -> Outcome:
        frame = packet if isinstance(packet, bytes) else packet.frame()
        descriptor = self.loaded.program_descriptor(program)
        return run_program(descriptor, frame, mark=mark, device=self.device, segment=segment)

    # ---- what is there ----

    def flows(self) -> Counter[FlowKind]:
        """Return how many flows there are of each kind."""
        return Counter(FlowKind(flow.kind) for _, flow in self.flow_entries())

    def flow_entries(self) -> list[tuple[layout.FlowKey, layout.Flow]]:
        """Return the table of flows."""
        with self.open_map("flows", layout.FlowKey, layout.Flow) as flows:
            return flows.items()

    def clear(self) -> None:
        """Empty what packets have made."""
        with self.open_map("flows", layout.FlowKey, layout.Flow) as flows:
            for key in list(flows.keys()):
                flows.delete(key)

    def age(self, seconds: float) -> None:
        """Make every flow as if last seen so much earlier."""
        with self.open_map("flows", layout.FlowKey, layout.Flow) as flows:
            for key, flow in flows.items():
                flow.last_seen -= min(flow.last_seen, int(seconds * 1e9))
                flows.write(key, flow)

    def counted(self) -> dict[str, int]:
        """Return the counters, summed over processors."""
        with self.open_map("counters", ctypes.c_uint32, layout.Counters) as counters:
            rows = counters.read_per_cpu(ctypes.c_uint32(0))
        return {name: sum(getattr(row, name) for row in rows) for name in layout.COUNTER_NAMES}

    # ---- maps ----

    def open_map(self, name: str, key: type[Key], value: type[Value]) -> maps.Map[Key, Value]:
        """Open a map whose keys and values are of these types of ctypes."""
        return maps.Map(os.dup(self.loaded.map_descriptor(name)), key, value)

    def write_entry(self, name: str, key: object, value: object) -> None:
        """Write an entry; key and value are of ctypes."""
        with self.open_map(name, type(key), type(value)) as written:
            written.write(key, value)


def packed(address: str) -> layout.Address:
    """Return an address as the programs have it."""
    return layout.packed(ipaddress.ip_address(address))


@contextlib.contextmanager
def director(sessions: int = 1024) -> Iterator[Director]:
    """Load the programs, in a network namespace that has the device, on one processor.

    A packet's ingress tells its egress things by processor.
    """
    processors = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(NetworkNamespace("director"))
        namespace.run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "other"])
        namespace.run(["ip", "link", "set", DEVICE, "up"])
        stack.enter_context(entered(str(namespace.path)))
        stack.callback(os.sched_setaffinity, 0, processors)
        os.sched_setaffinity(0, {min(processors)})
        loaded = stack.enter_context(BpfObject(str(OBJECT)))
        loaded.set_maximum_entries("flows", sessions * layout.FLOWS_PER_SESSION)
        loaded.load()
        made = Director(loaded, socket.if_nametoindex(DEVICE))
        program = ctypes.c_uint32(loaded.program_descriptor(layout.AGEING_PROGRAM))
        made.write_entry("ageing", ctypes.c_uint32(0), program)
        made.declare_device()
        made.configure()
        yield made
