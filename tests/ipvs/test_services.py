"""Services by a wish in the kernel's table, with ipvsadm as the eye that is not ours."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.errors import ApplyFailed
from meshaccel.ipvs import table, timeouts
from meshaccel.ipvs.desired import parse
from meshaccel.ipvs.service import Services, ServicesResult
from meshaccel.system.network_namespaces import entered
from tests.support.accelerator import node_paths
from tests.support.namespaces import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.ipvs.model import VirtualService
    from tests.ipvs.lab import Lab

VIRTUAL_ADDRESS = "10.79.0.100"
SERVICES = 10_000
SERVERS = 5
WEB = {"address": "10.0.0.1", "port": 80, "scheduler": "rr", "servers": ["10.1.0.1:80", "10.1.0.2:80"]}
#: Every kind of service and server, and what `ipvsadm -Sn` says of it.
KINDS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {
            **WEB,
            "servers": [
                "10.1.0.1:8080",
                {"address": "10.1.0.3", "weight": 3, "upper_threshold": 100, "lower_threshold": 80},
            ],
        },
        [
            "-A -t 10.0.0.1:80 -s rr",
            "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1",
            "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -m -w 3",
        ],
    ),
    (
        {
            "address": "10.0.0.1",
            "port": 81,
            "servers": [
                {"address": "fd00::9", "forwarding": "tunnel"},
                {
                    "address": "10.1.0.2",
                    "forwarding": "tunnel",
                    "tunnel_type": "gue",
                    "tunnel_port": 6080,
                    "tunnel_checksum": "remote",
                },
                {
                    "address": "10.1.0.4",
                    "forwarding": "tunnel",
                    "tunnel_type": "gre",
                    "tunnel_checksum": "full",
                },
            ],
        },
        [
            "-A -t 10.0.0.1:81 -s wlc",
            "-a -t 10.0.0.1:81 -r [fd00::9]:81 -i -w 1 --tun-type ipip",
            "-a -t 10.0.0.1:81 -r 10.1.0.2:81 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
            "-a -t 10.0.0.1:81 -r 10.1.0.4:81 -i -w 1 --tun-type gre --tun-csum",
        ],
    ),
    (
        {
            "address": "fd00::1",
            "port": 53,
            "protocol": "udp",
            "scheduler": "sh",
            "flags": ["sh-port", "sh-fallback", "ops"],
            "persistence_timeout": 300,
            "persistence_netmask": 64,
            "servers": ["[fd00::2]:53"],
        },
        [
            "-A -u [fd00::1]:53 -s sh -p 300 -M 64 -o -b sh-fallback,sh-port",
            "-a -u [fd00::1]:53 -r [fd00::2]:53 -m -w 1",
        ],
    ),
    (
        {
            "address": "10.0.0.1",
            "port": 99,
            "protocol": "sctp",
            "scheduler": "mh",
            "flags": ["mh-port", "mh-fallback"],
            "servers": [{"address": "10.1.0.3", "forwarding": "direct_routing"}],
        },
        [
            "-A --sctp-service 10.0.0.1:99 -s mh -b mh-fallback,mh-port",
            "-a --sctp-service 10.0.0.1:99 -r 10.1.0.3:99 -g -w 1",
        ],
    ),
    (
        {"address": "10.0.0.1", "port": 0, "persistence_timeout": 60, "servers": ["10.1.0.3"]},
        ["-A -t 10.0.0.1:0 -s wlc -p 60", "-a -t 10.0.0.1:0 -r 10.1.0.3:0 -m -w 1"],
    ),
    (
        {"firewall_mark": 7, "persistence_timeout": 100, "persistence_netmask": 24, "servers": ["10.1.0.9"]},
        ["-A -f 7 -s wlc -p 100 -M 255.255.255.0", "-a -f 7 -r 10.1.0.9:0 -m -w 1"],
    ),
    ({"firewall_mark": 7, "family": "ipv6"}, ["-A -f 7 -6 -s wlc"]),
    (
        {
            "address": "10.0.0.1",
            "port": 5060,
            "protocol": "udp",
            "persistence_timeout": 60,
            "persistence_engine": "sip",
            "servers": ["10.1.0.9:5060"],
        },
        [
            "-A -u 10.0.0.1:5060 -s wlc -p 60 --pe sip",
            "-a -u 10.0.0.1:5060 -r 10.1.0.9:5060 -m -w 1",
        ],
    ),
]


@dataclass(frozen=True)
class Director:
    """A namespace with services of its own."""

    namespace: NetworkNamespace
    services: Services

    def converge(self, *entries: dict[str, Any], **more: object) -> ServicesResult:
        """Make the services as wished."""
        with self.inside():
            return self.services.converge(parse({"services": list(entries), "drain_seconds": 0, **more}))

    def read(self) -> tuple[VirtualService, ...]:
        """Return the table by our own reading."""
        with self.inside():
            return table.read()

    def seen(self) -> list[str]:
        """Return the table as ipvsadm saves it; it leaves thresholds out."""
        return sorted(self.ipvsadm("-Sn").splitlines())

    def ipvsadm(self, *words: str, standard_input: str | None = None) -> str:
        """Run ipvsadm."""
        return self.namespace.run(["ipvsadm", *words], standard_input=standard_input, timeout=200)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Work in the namespace."""
        with entered(str(self.namespace.path)):
            yield


@pytest.fixture
def director(tmp_path: Path) -> Iterator[Director]:
    with NetworkNamespace("services") as namespace:
        yield Director(namespace, Services(node_paths(tmp_path, tmp_path / "bpffs")))


# ---- what there is ----


def test_services_of_every_kind_are_as_ipvsadm_shows_them(director: Director) -> None:
    entries = [entry for entry, _ in KINDS]
    made = director.converge(*entries)
    assert director.seen() == sorted(line for _, lines in KINDS for line in lines)
    thresholds = director.ipvsadm("-Ln", "--thresholds", "-t", "10.0.0.1:80").splitlines()
    assert [line.split() for line in thresholds if "10.1.0.3" in line] == [
        ["->", "10.1.0.3:80", "100", "80", "0", "0"]
    ]
    assert made.messages == sum(len(lines) for _, lines in KINDS)
    again = director.converge(*entries)
    assert (again.changed, again.messages) == (False, 0)
    gone = director.converge(state="absent")
    assert (director.seen(), gone.messages) == ([], len(KINDS))


def test_what_was_changed_by_hand_is_found_and_set_back_with_a_message_for_each(director: Director) -> None:
    entries = [entry for entry, _ in KINDS]
    director.converge(*entries)
    as_wished = director.seen()
    by_hand = (
        "-E -t 10.0.0.1:80 -s wrr",
        "-e -t 10.0.0.1:80 -r 10.1.0.3:80 -m -w 3 -x 9",
        "-e -t 10.0.0.1:81 -r 10.1.0.2:81 -i --tun-type gue --tun-port 6081",
        "-d -f 7 -r 10.1.0.9:0",
        "-a -u [fd00::1]:53 -r [fd00::3]:53 -m",
        "-E -u 10.0.0.1:5060 -s wlc",
    )
    director.ipvsadm("-R", standard_input="\n".join(by_hand))
    assert director.converge(*entries).messages == len(by_hand)
    assert director.seen() == as_wished
    assert " 100 " in director.ipvsadm("-Ln", "--thresholds", "-t", "10.0.0.1:80")


def test_services_of_somebody_else_are_left_alone_until_they_are_purged(director: Director) -> None:
    foreign = ["-A -t 10.0.0.7:80 -s rr", "-a -t 10.0.0.7:80 -r 10.1.0.7:80 -m -w 2"]
    director.ipvsadm("-R", standard_input="\n".join(foreign))
    director.converge(WEB)
    director.converge(state="absent")
    assert director.seen() == foreign
    assert director.converge(WEB, purge=True).messages == 4
    assert not any("10.0.0.7" in line for line in director.seen())


def test_what_the_kernel_refuses_undoes_what_was_done_before(director: Director) -> None:
    director.converge(WEB)
    before = director.seen()
    director.namespace.configure([["address", "add", "10.9.0.1/24", "dev", "lo"]])
    with pytest.raises(
        ApplyFailed, match=r"10\.9\.0\.255:80 of tcp 10\.0\.0\.2:80: Invalid argument"
    ) as caught:
        director.converge(
            {**WEB, "scheduler": "wrr"},
            {"address": "10.0.0.2", "port": 80, "servers": ["10.1.0.1:80", "10.9.0.255:80"]},
        )
    assert caught.value.undo_errors == ()
    assert director.seen() == before
    assert not director.converge(WEB).changed


def test_services_come_back_from_what_is_kept(director: Director) -> None:
    entries = [entry for entry, _ in KINDS]
    director.converge(*entries)
    before = director.seen()
    director.ipvsadm("-C")
    with director.inside():
        assert len(director.services.status()["missing"]) == len(KINDS)
        director.services.restore()
        assert director.services.status()["missing"] == []
    assert director.seen() == before


def test_timeouts_are_those_that_were_set(director: Director) -> None:
    director.ipvsadm("--set", "901", "121", "301")
    with director.inside():
        assert timeouts.read() == timeouts.Timeouts(tcp=901, tcp_fin=121, udp=301)


# ---- draining ----


@pytest.fixture
def drained(lab: Lab, tmp_path: Path) -> Iterator[tuple[Director, socket.socket]]:
    """Return a director with a service of one server, and a client's connection through it."""
    lab.director.configure([["address", "add", f"{VIRTUAL_ADDRESS}/32", "dev", "lo"]])
    director = Director(lab.director, Services(node_paths(tmp_path, tmp_path / "bpffs")))
    with contextlib.ExitStack() as sockets:
        with entered(str(lab.backends[0].namespace.path)):
            server = sockets.enter_context(socket.create_server((lab.backends[0].address4, 7000)))
        director.converge(through(lab.backends[0].address4))
        with entered(str(lab.client.namespace.path)):
            client = sockets.enter_context(socket.create_connection((VIRTUAL_ADDRESS, 7000), timeout=10))
        sockets.enter_context(server.accept()[0])
        yield director, client


def through(*servers: str) -> dict[str, Any]:
    """Return the service of the virtual address."""
    return {"address": VIRTUAL_ADDRESS, "port": 7000, "servers": [f"{server}:7000" for server in servers]}


def test_a_server_that_leaves_is_removed_as_soon_as_its_last_connection_ends(
    drained: tuple[Director, socket.socket],
) -> None:
    director, client = drained
    weights: list[str] = []

    def end() -> None:
        weights.append(director.ipvsadm("-Sn"))
        client.shutdown(socket.SHUT_RDWR)

    ending = threading.Timer(3, end)
    ending.start()
    done = director.converge(through(), drain_seconds=250)
    ending.join()
    assert "-m -w 0" in weights[0]
    assert done.notes == ()
    assert director.seen() == [f"-A -t {VIRTUAL_ADDRESS}:7000 -s wlc"]


def test_a_connection_that_does_not_end_is_waited_for_no_longer_than_was_said(
    drained: tuple[Director, socket.socket],
) -> None:
    director, _ = drained
    done = director.converge(state="absent", drain_seconds=1)
    assert [note.partition(";")[0] for note in done.notes] == ["servers left with 1 connections after 1 s"]
    assert director.seen() == []


# ---- how much it takes ----


def test_of_ten_thousand_services_one_that_changes_takes_messages_for_it_alone(director: Director) -> None:
    entries: list[dict[str, Any]] = [
        {
            "address": f"10.{number >> 8}.{number & 255}.1",
            "port": 80,
            "scheduler": "rr",
            "servers": [f"10.{200 + server}.{number >> 8}.{number & 255}:80" for server in range(SERVERS)],
        }
        for number in range(256, 256 + SERVICES)
    ]
    rules = [
        line
        for entry in entries
        for line in (
            f"-A -t {entry['address']}:80 -s rr",
            *(f"-a -t {entry['address']}:80 -r {server} -m -w 1" for server in entry["servers"]),
        )
    ]
    director.ipvsadm("-R", standard_input="\n".join(rules))
    assert director.converge(*entries).messages == 0
    entries[SERVICES // 2]["servers"][0] = {"address": "10.250.0.1", "port": 80, "weight": 7}
    assert director.converge(*entries).messages == 2
    seen = director.seen()
    assert len(seen) == SERVICES * (1 + SERVERS)
    assert [line.partition(" -r ")[2] for line in seen if " -r 10.250.0.1:" in line] == [
        "10.250.0.1:80 -m -w 7"
    ]


def test_services_of_another_namespace_hide_none_of_ours() -> None:
    """The listing of the kernel leaves services out where it goes on behind a full page of it."""
    commands = "".join(
        f"-A -t 10.9.{each}.1:80 -s rr\n-a -t 10.9.{each}.1:80 -r 10.1.0.1:80 -m\n" for each in range(60)
    )
    with NetworkNamespace("one") as one, NetworkNamespace("other") as other:
        for namespace in (one, other):
            namespace.run(["ipvsadm", "-R"], standard_input=commands)
        with entered(str(one.path)):
            found = table.read()
    assert len(found) == 60
    assert {len(service.servers) for service in found} == {1}
