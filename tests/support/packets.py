"""Packets as bytes: made with every checksum, and read back with every checksum looked at."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ETHERNET_LENGTH = 14
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
VERSIONS = {value: version for version, value in ETHERTYPES.items()}
IPV4_LENGTH = 20
IPV6_LENGTH = 40
FRAGMENT_LENGTH = 8
IPV6_FRAGMENT = 44
IPV6_HOP_OPTIONS, IPV6_ROUTING, IPV6_DESTINATION_OPTIONS = 0, 43, 60
TCP_LENGTH = 20
UDP_LENGTH = 8
ICMP_LENGTH = 8
CHECKSUM_AT = {
    socket.IPPROTO_TCP: 16,
    socket.IPPROTO_UDP: 6,
    socket.IPPROTO_ICMP: 2,
    socket.IPPROTO_ICMPV6: 2,
}
TCP = socket.IPPROTO_TCP
UDP = socket.IPPROTO_UDP
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
#: Destination unreachable, port: its type and code, by the version of IP (RFC 792, RFC 4443).
PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}
FIN, SYN, RST, ACK = 1, 2, 4, 16
MORE_FRAGMENTS_IPV4 = 0x2000
WINDOW = 1024


class ChecksumError(AssertionError):
    """A packet has a checksum that does not fit its contents."""


@dataclass(frozen=True)
class Packet:
    """A TCP segment or a datagram, whole; ports in host byte order."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int = TCP
    flags: int = 0
    payload: bytes = b""
    hops: int = 64
    has_checksum: bool = True
    """False: UDP over IPv4 that comes without."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source else 4

    def turned(self, **changes: Any) -> Packet:
        """Return the packet that goes the other way."""
        other = replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )
        return replace(other, **changes)

    def transport(self) -> bytes:
        """Return the bytes behind IP's header."""
        if self.protocol == TCP:
            offset_and_flags = (TCP_LENGTH // 4) << 12 | self.flags
            ports = (self.source_port, self.destination_port)
            head = struct.pack("!HHIIHHHH", *ports, 1, 1, offset_and_flags, WINDOW, 0, 0)
        else:
            length = UDP_LENGTH + len(self.payload)
            head = struct.pack("!HHHH", self.source_port, self.destination_port, length, 0)
        data = head + self.payload
        if not self.has_checksum:
            return data
        return with_checksum(
            data, self.protocol, pseudo_header(self.source, self.destination, self.protocol, data)
        )

    def frame(self) -> bytes:
        """Return it behind an Ethernet header."""
        data = self.transport()
        return framed(self.version, ip_header(self, len(data), self.protocol) + data)

    def fragments(self, size: int, identification: int = 7) -> list[bytes]:
        """Return it as frames of fragments of at most `size` bytes each, a multiple of eight."""
        data = self.transport()
        starts = range(0, len(data), size)
        return [
            fragment_frame(self, data[start : start + size], start, start + size < len(data), identification)
            for start in starts
        ]


def framed(version: int, packet: bytes) -> bytes:
    """Return an IP packet behind an Ethernet header."""
    return bytes(12) + struct.pack("!H", ETHERTYPES[version]) + packet


def ip_header(
    packet: Packet, length: int, protocol: int, fragment: int = 0, identification: int = 0
) -> bytes:
    """Return IP's header before `length` bytes; `fragment` is the field with flags and offset."""
    source, destination = (ipaddress.ip_address(each).packed for each in (packet.source, packet.destination))
    if packet.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, protocol, packet.hops) + source + destination
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, IPV4_LENGTH + length, identification, fragment, packet.hops, protocol, 0
    )
    head += source + destination
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def with_options(packet: Packet, options: bytes) -> bytes:
    """Return the frame of an IPv4 packet with options (RFC 791, 3.1), of a length that four divides."""
    data = packet.transport()
    head = bytearray(ip_header(packet, len(options) + len(data), packet.protocol)[:IPV4_LENGTH] + options)
    head[0] = 0x40 | len(head) // 4
    head[10:12] = bytes(2)
    head[10:12] = struct.pack("!H", checksum(bytes(head)))
    return framed(4, bytes(head) + data)


def with_extensions(packet: Packet, extensions: Sequence[tuple[int, int]]) -> bytes:
    """Return the frame of an IPv6 packet with extension headers (RFC 8200, 4): kind and length in bytes."""
    data, following = packet.transport(), packet.protocol
    for kind, length in reversed(extensions):
        # What they hold is padding, but for a routing header's type and segments left: 0, 0.
        data = struct.pack("!BBBB", following, length // 8 - 1, 1, length - 4) + bytes(length - 4) + data
        following = kind
    return framed(6, ip_header(packet, len(data), following) + data)


def fragment_frame(packet: Packet, data: bytes, offset: int, more: bool, identification: int) -> bytes:
    """Return the frame of one fragment (RFC 791, 3.1; RFC 8200, 4.5)."""
    if packet.version == 6:
        header = struct.pack("!BBHI", packet.protocol, 0, offset | more, identification)
        content = header + data
        return framed(6, ip_header(packet, len(content), IPV6_FRAGMENT) + content)
    field = offset // 8 | (MORE_FRAGMENTS_IPV4 if more else 0)
    return framed(4, ip_header(packet, len(data), packet.protocol, field, identification) + data)


def error_about(
    packet: Packet,
    sender: str,
    receiver: str,
    kind: tuple[int, int] | None = None,
    frame: bytes | None = None,
) -> bytes:
    """Return the frame of an ICMP error about a packet, or about another `frame` of it.

    Its `kind` is type and code; left open: port unreachable.
    """
    about = (frame or packet.frame())[ETHERNET_LENGTH:]
    protocol = ICMP[packet.version]
    message = struct.pack("!BBHI", *(kind or PORT_UNREACHABLE[packet.version]), 0, 0) + about
    pseudo = pseudo_header(sender, receiver, protocol, message) if packet.version == 6 else b""
    outer = replace(packet, source=sender, destination=receiver)
    message = with_checksum(message, protocol, pseudo)
    return framed(packet.version, ip_header(outer, len(message), protocol) + message)


def checksum(data: bytes) -> int:
    """Return the internet checksum of bytes (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f"!{len(padded) // 2}H", padded)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: str, destination: str, protocol: int, data: bytes) -> bytes:
    """Return what a transport's checksum covers beside it (RFC 9293, 3.1; RFC 8200, 8.1)."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if ipaddress.ip_address(source).version == 6:
        return addresses + struct.pack("!II", len(data), protocol)
    return addresses + struct.pack("!HH", protocol, len(data))


def with_checksum(data: bytes, protocol: int, pseudo: bytes) -> bytes:
    """Return a transport's bytes with their checksum, whose field was zero."""
    at = CHECKSUM_AT[protocol]
    value = checksum(pseudo + data)
    if protocol == UDP and not value:
        value = 0xFFFF
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def read(frame: bytes) -> Packet:
    """Return what a frame is; raises ChecksumError."""
    return read_ip(frame[ETHERNET_LENGTH:])


def read_ip(packet: bytes, *, is_whole: bool = True) -> Packet:
    """Return what an IP packet is; raises ChecksumError, of the transport's only when it is whole."""
    version = packet[0] >> 4
    head, data, protocol, hops = split(packet, version)
    source, destination = addresses_of(head, version)
    has_checksum = protocol != UDP or data[6:8] != bytes(2)
    if is_whole and has_checksum and checksum(pseudo_header(source, destination, protocol, data) + data):
        raise ChecksumError(f"that of protocol {protocol}, {source} to {destination}")
    length = TCP_LENGTH if protocol == TCP else UDP_LENGTH
    source_port, destination_port = struct.unpack_from("!HH", data)
    return Packet(
        source,
        destination,
        source_port,
        destination_port,
        protocol=protocol,
        flags=data[13] if protocol == TCP else 0,
        payload=data[length:],
        hops=hops,
        has_checksum=has_checksum,
    )


def read_error(frame: bytes) -> tuple[str, str, Packet]:
    """Return an ICMP error's sender, receiver and what it is about; raises ChecksumError."""
    version = frame[ETHERNET_LENGTH] >> 4
    head, data, protocol, _ = split(frame[ETHERNET_LENGTH:], version)
    sender, receiver = addresses_of(head, version)
    pseudo = pseudo_header(sender, receiver, protocol, data) if version == 6 else b""
    if checksum(pseudo + data):
        raise ChecksumError("that of the error")
    return sender, receiver, read_ip(data[ICMP_LENGTH:], is_whole=False)


def read_fragments(frames: list[bytes]) -> Packet:
    """Put fragments together and return what they are; raises ChecksumError."""
    version = frames[0][ETHERNET_LENGTH] >> 4
    parts = [split(frame[ETHERNET_LENGTH:], version) for frame in frames]
    head, first, protocol, hops = parts[0]
    if version == 6:
        protocol = first[0]
    data = b"".join(content[FRAGMENT_LENGTH if version == 6 else 0 :] for _, content, _, _ in parts)
    source, destination = addresses_of(head, version)
    whole = Packet(source, destination, 0, 0, protocol=protocol, hops=hops)
    return read_ip(ip_header(whole, len(data), protocol) + data)


def split(packet: bytes, version: int) -> tuple[bytes, bytes, int, int]:
    """Return header, contents, protocol and hops that are left; raises ChecksumError."""
    if version == 6:
        length, protocol, hops = struct.unpack_from("!HBB", packet, 4)
        data = packet[IPV6_LENGTH : IPV6_LENGTH + length]
        while protocol in (IPV6_HOP_OPTIONS, IPV6_DESTINATION_OPTIONS):
            protocol, data = data[0], data[8 + 8 * data[1] :]
        return packet[:IPV6_LENGTH], data, protocol, hops
    length, hops, protocol = struct.unpack_from("!2xH4xBB", packet)
    header = 4 * (packet[0] & 0xF)
    if checksum(packet[:header]):
        raise ChecksumError("that of the IPv4 header")
    return packet[:header], packet[header:length], protocol, hops


def addresses_of(head: bytes, version: int) -> tuple[str, str]:
    """Return source and destination of IP's header."""
    start, size = (12, 4) if version == 4 else (8, 16)
    source, destination = head[start : start + size], head[start + size : start + 2 * size]
    return str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))
