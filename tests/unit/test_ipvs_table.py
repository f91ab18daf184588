"""What the kernel says of its table, read; what is sent to change it, read back by the same parser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError

from meshaccel.errors import Unsupported
from meshaccel.ipvs import interface, kernel_module, listing, messages, table
from meshaccel.ipvs.desired import Desired, parse
from meshaccel.ipvs.entries import parse_services
from meshaccel.ipvs.model import AddressKey, MarkKey, RealServer, VirtualService
from meshaccel.ipvs.observe import observe
from meshaccel.system import tools
from meshaccel.system.netlink import attributes
from tests.support.accelerator import node_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of Linux 6.1, by services of every kind.
LISTING = (Path(__file__).parent / "recorded" / "proc-net-ip_vs.txt").read_text()
ENTRIES: list[dict[str, Any]] = [
    {"address": "10.0.0.1", "port": 80, "scheduler": "rr", "servers": ["10.1.0.1:8080", "10.1.0.2"]},
    {"address": "fd00::1", "port": 53, "protocol": "udp", "scheduler": "sh", "flags": ["sh-port", "ops"]},
    {
        "address": "10.0.0.1",
        "port": 99,
        "protocol": "sctp",
        "scheduler": "mh",
        "flags": ["mh-port", "mh-fallback"],
        "persistence_timeout": 300,
        "persistence_netmask": 24,
        "persistence_engine": "other",
        "servers": [
            {
                "address": "fd00::9",
                "forwarding": "tunnel",
                "tunnel_type": "gue",
                "tunnel_port": 6080,
                "tunnel_checksum": "remote",
            },
            {"address": "10.1.0.3", "forwarding": "direct_routing", "weight": 0, "upper_threshold": 9},
        ],
    },
    {"address": "fd00::1", "port": 0, "persistence_timeout": 60, "persistence_netmask": 64},
    {"firewall_mark": 7, "family": "ipv6", "servers": ["[fd00::2]:0"]},
]
SERVICES = parse_services(ENTRIES)


class SentMessages:
    """Stands for pyroute2's socket: keeps what is sent, and for the kernel's dump of it."""

    prid = 30

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def bind(self, family: str, _: type) -> None:
        assert family == "IPVS"

    def close(self) -> None:
        pass

    def nlm_request(self, message: messages.Message, msg_type: int, msg_flags: int) -> Iterator[object]:
        assert (msg_type, msg_flags) == (self.prid, NLM_F_REQUEST | NLM_F_ACK)
        message.encode()
        # Behind the headers of netlink and of generic netlink.
        self.sent.append((message["cmd"], bytes(message.data[20:])))
        yield message


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> SentMessages:
    fake = SentMessages()
    monkeypatch.setattr(messages, "GenericNetlinkSocket", lambda: fake)
    return fake


# ---- the listing ----


def test_the_listing_has_every_server_of_every_service_with_an_address() -> None:
    found = listing.parse(LISTING)
    assert found == {
        AddressKey("udp", "10.0.0.1", 5060): [],
        AddressKey("udp", "10.0.0.1", 53): [],
        AddressKey("sctp", "10.0.0.1", 99): [
            listing.Listed(RealServer("10.1.0.3", 99, "direct_routing"), 0, 0)
        ],
        AddressKey("udp", "fd00::1", 53): [listing.Listed(RealServer("fd00::2", 53), 0, 7)],
        AddressKey("tcp", "10.0.0.1", 80): [
            listing.Listed(RealServer("10.1.0.2", 80, "tunnel"), 0, 0),
            listing.Listed(RealServer("10.1.0.1", 8080, weight=3), 5, 2),
        ],
    }


def test_a_service_that_is_listed_twice_has_its_servers_once() -> None:
    """The kernel goes on by position, which moves when services come meanwhile."""
    twice = LISTING + "".join(LISTING.splitlines(keepends=True)[-5:-2])
    assert listing.parse(twice) == listing.parse(LISTING)


def test_a_listing_without_services_has_none() -> None:
    assert listing.parse("".join(LISTING.splitlines(keepends=True)[:3])) == {}


# ---- messages ----


@pytest.mark.parametrize("service", SERVICES, ids=str)
def test_what_is_sent_of_a_service_is_read_back_as_it_was(
    service: VirtualService, socket: SentMessages
) -> None:
    with messages.Kernel() as kernel:
        kernel.new_service(service)
        kernel.set_service(service)
        for server in service.servers:
            kernel.new_server(service.key, server)
            kernel.set_server(service.key, server)
        assert kernel.sent == len(socket.sent)
    (new, made), (change, changed), *servers = socket.sent
    assert (new, change) == (interface.NEW_SERVICE, interface.SET_SERVICE)
    assert table.parse_service(made) == table.parse_service(changed) == service.settings
    assert [command for command, _ in servers] == [
        interface.NEW_SERVER,
        interface.SET_SERVER,
    ] * len(service.servers)
    assert [table.parse_server(message) for _, message in servers[::2]] == list(service.servers)
    assert servers[::2] != servers[1::2] or not servers


@pytest.mark.parametrize("service", SERVICES, ids=str)
def test_what_goes_is_named_as_a_look_at_it_names_it(service: VirtualService, socket: SentMessages) -> None:
    named = attributes(table.identity(service.key))[interface.SERVICE]
    with messages.Kernel() as kernel:
        kernel.delete_service(service.key)
        for server in service.servers:
            kernel.delete_server(service.key, server)
    assert [attributes(message)[interface.SERVICE] for _, message in socket.sent] == [named] * (
        1 + len(service.servers)
    )
    for (command, message), server in zip(socket.sent[1:], service.servers, strict=True):
        assert command == interface.DELETE_SERVER
        found = attributes(attributes(message)[interface.SERVER])
        assert found.keys() == {interface.SERVER_ADDRESS, interface.SERVER_PORT, interface.SERVER_FAMILY}
        assert int.from_bytes(found[interface.SERVER_PORT], "big") == server.port


def test_what_the_kernel_refuses_is_told_with_its_subject(
    socket: SentMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NetlinkError(17)

    monkeypatch.setattr(socket, "nlm_request", refuse)
    with (
        messages.Kernel() as kernel,
        pytest.raises(FileExistsError, match=r"10\.1\.0\.1:8080 of tcp 10\.0\.0\.1:80"),
    ):
        kernel.new_server(SERVICES[0].key, SERVICES[0].servers[0])


def test_flags_that_mean_nothing_to_a_scheduler_have_ipvsadm_s_names() -> None:
    foreign = SERVICES[0]._replace(flags=("flag-2", "ops"))
    assert table.flag_names(messages.flag_bits(foreign), "rr") == foreign.flags
    assert table.flag_names(messages.flag_bits(foreign), "sh") == ("ops", "sh-port")


# ---- the module, and reading both ----


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Have a kernel without IPVS; returns the commands that are run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> str:
        commands.append(command)
        return ""

    monkeypatch.setattr(kernel_module, "loaded", lambda: False)
    monkeypatch.setattr(tools, "run", run)
    return commands


def test_looking_does_not_load_the_module(unloaded: list[list[str]], tmp_path: Path) -> None:
    seen = observe(parse({"services": ENTRIES}), node_paths(tmp_path, tmp_path))
    assert (seen.loaded, seen.services) == (False, ())
    assert unloaded == [["modprobe", "--dry-run", "ip_vs"]]
    observe(Desired(present=False), node_paths(tmp_path, tmp_path))
    assert len(unloaded) == 1


def test_a_kernel_that_cannot_have_the_module_is_told(
    unloaded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unsupported, match="found no /proc/net/ip_vs after modprobe ip_vs"):
        kernel_module.ensure()
    assert unloaded == [["modprobe", "ip_vs"]]

    def missing(*_: object, **__: object) -> str:
        raise tools.ToolFailed(wanted="modprobe", found="FATAL: Module ip_vs not found", remedy="")

    monkeypatch.setattr(tools, "run", missing)
    with pytest.raises(Unsupported, match="wanted IPVS in the kernel; found FATAL: Module ip_vs not found"):
        table.read()


def test_schedulers_are_those_that_modules_are_listed_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "MODULES", str(tmp_path))
    monkeypatch.setattr(os, "uname", lambda: type("uname", (), {"release": "6.1"}))
    assert kernel_module.schedulers() is None
    (tmp_path / "6.1").mkdir()
    directory = "kernel/net/netfilter/ipvs"
    (tmp_path / "6.1/modules.dep").write_text(
        f"{directory}/ip_vs_rr.ko: {directory}/ip_vs.ko\n{directory}/ip_vs_pe_sip.ko.xz:\n"
        f"{directory}/ip_vs_mh.ko.zst:\n{directory}/ip_vs_ftp.ko:\n"
    )
    (tmp_path / "6.1/modules.builtin").write_text(f"{directory}/ip_vs_wlc.ko\n")
    assert kernel_module.schedulers() == frozenset({"rr", "mh", "wlc"})


def test_a_service_of_a_mark_is_known_by_its_family() -> None:
    assert MarkKey("ipv4", 7) != SERVICES[-1].key == MarkKey("ipv6", 7)
