"""Networks of guests: one Ethernet segment each, over multicast on this machine's loopback."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: What guests send reaches every emulator that listens at this address and at the network's port.
GROUP = "230.0.0.7"
#: The first two octets of an Ethernet address that is nobody's: administered by who uses it.
OWN_HARDWARE = (0x02, 0x00)
#: Where systemd-networkd reads what a guest's second card is.
CONFIGURATION = "/etc/systemd/network/20-guests.network"
#: Run by a guest's shell with that file, its text and the address: finds the card and waits for the address.
JOIN = """
printf %s "$1" >"$0" && networkctl reload && echo 1 >/sys/bus/pci/rescan &&
until ip -brief address show up | grep --quiet --fixed-strings "$2"; do sleep 0.1; done
"""
ANY_FREE = 0
FILE_NAME = "membership"


class AddressError(RuntimeError):
    """An address is none, or another guest's."""


@dataclass(frozen=True)
class Membership:
    """A guest's place in a network."""

    network: str
    address: str
    """With the length of the prefix: 10.77.0.1/24."""
    port: int
    """Of the group; each network has its own."""

    def __post_init__(self) -> None:
        """Raise AddressError when the address is none."""
        try:
            ipaddress.IPv4Interface(self.address)
        except ValueError as error:
            raise AddressError(f"{error}: give one such as 10.77.0.1/24") from error

    @property
    def hardware_address(self) -> str:
        """The Ethernet address of its card, which follows from the address."""
        octets = (*OWN_HARDWARE, *ipaddress.IPv4Interface(self.address).packed)
        return ":".join(f"{octet:02x}" for octet in octets)

    def configuration(self) -> str:
        """Return the file by which systemd-networkd sets the card up."""
        return (
            f"[Match]\nMACAddress={self.hardware_address}\n\n"
            f"[Network]\nAddress={self.address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        )

    def write(self, directory: Path) -> None:
        """Keep it in a guest's folder."""
        (directory / FILE_NAME).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Membership | None:
        """Return that of a guest's folder, None when it is in no network."""
        try:
            return cls(**json.loads((directory / FILE_NAME).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def join(network: str, address: str, others: Iterable[Membership]) -> Membership:
    """Return a place in a network, with the port of those that are in it already, or with a new one.

    Raises AddressError.
    """
    members = [other for other in others if other.network == network]
    wanted = Membership(network, address, members[0].port if members else free_port())
    if any(member.hardware_address == wanted.hardware_address for member in members):
        raise AddressError(f"{address} is another guest's in the network {network}: choose one that is free")
    return wanted


def free_port() -> int:
    """Return a UDP port at which no network has its group now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # At every address, so that a port is not free if an emulator has it at the group's.
        probe.bind(("", ANY_FREE))
        port: int = probe.getsockname()[1]
        return port
