"""What our nftables table does to packets of a namespace; nft and conntrack's own list are the eyes."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf import notrack
from meshaccel.accelerators.ipvs_bpf.notrack import Table
from meshaccel.system import network_namespaces, nft
from tests.support.namespaces import Attachment, NetworkNamespace, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODE, CLIENT = "10.97.0.1", "10.97.0.2"
LOW, HIGH = 0x1000, 0x2000
REPLACEMENTS = 20
MARKED_PORTS = {2001: LOW, 2002: HIGH, 2003: LOW | HIGH}
UNMARKED_PORT = 2000
#: Of the programs, here by nft: marks by the port; and a rule that has conntrack work in the namespace.
MARKING = f"""
table inet marking {{
  chain marking {{
    type filter hook prerouting priority -350;
    {"".join(f"udp dport {port} meta mark set {mark}{chr(10)}" for port, mark in MARKED_PORTS.items())}
  }}
  chain tracking {{ type filter hook input priority 0; ct state new counter; }}
}}
"""


@pytest.fixture
def client() -> Iterator[NetworkNamespace]:
    """The other end of the node's wire; the test's thread works on the node."""
    with NetworkNamespace("node") as node, NetworkNamespace("client") as client:
        connect(Attachment(node, "wire", (f"{NODE}/24",)), Attachment(client, "end", (f"{CLIENT}/24",)))
        node.run(["nft", "-f", "-"], standard_input=MARKING)
        with network_namespaces.entered(str(node.path)):
            yield client


TABLE = Table(LOW, HIGH)


def make(wished: Table | None) -> bool:
    """Converge to a table; returns whether anything changed. engine checks that the second plan is empty."""
    return engine.converge(
        notrack.observe, lambda observed: notrack.make_plan(wished, observed), notrack.handlers()
    ).changed


def tracked_ports() -> set[int]:
    """Return the destination ports of conntrack's entries in the calling thread's namespace."""
    lines = Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii").splitlines()
    return {int(word[6:]) for line in lines for word in line.split()[:12] if word.startswith("dport=")}


def send(*ports: int, mark: int = 0, to: str = NODE) -> None:
    """Send a packet to each of the ports, from the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        for port in ports:
            sender.sendto(b"packet", (to, port))


def sent_by(client: NetworkNamespace, *ports: int) -> None:
    with network_namespaces.entered(str(client.path)):
        send(*ports)


def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes about by itself at once."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_marked_packets_are_not_tracked(client: NetworkNamespace) -> None:
    sent_by(client, *MARKED_PORTS)
    until(lambda: tracked_ports() == set(MARKED_PORTS))
    assert make(TABLE)
    assert not make(TABLE)
    with network_namespaces.entered(str(client.path)), socket.socket(type=socket.SOCK_DGRAM) as fresh:
        fresh.bind((CLIENT, 999))
        for port in (*MARKED_PORTS, UNMARKED_PORT):
            fresh.sendto(b"packet", (NODE, port))
    until(lambda: notrack.observe().bypassed == len(MARKED_PORTS))
    until(lambda: UNMARKED_PORT in tracked_ports())
    entries = Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii").splitlines()
    (only,) = [line for line in entries if "sport=999 " in line]
    assert f"dport={UNMARKED_PORT} " in only


def test_none_is_tracked_while_the_table_is_replaced(client: NetworkNamespace) -> None:
    make(TABLE)
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            sent_by(client, *MARKED_PORTS)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        until(lambda: notrack.observe().bypassed > 0)
        for _ in range(REPLACEMENTS):
            for wished in (Table(LOW, HIGH << 1 | HIGH), TABLE):
                assert make(wished)
    finally:
        ended.set()
        thread.join()
    assert tracked_ports() == set()


@pytest.mark.parametrize(
    "script",
    [
        "flush ruleset",
        "delete table inet meshaccel_ipvs_bpf",
        "flush chain inet meshaccel_ipvs_bpf prerouting",
        "add rule inet meshaccel_ipvs_bpf prerouting accept",
        "add chain inet meshaccel_ipvs_bpf other { type filter hook input priority 0; }",
        "add chain inet meshaccel_ipvs_bpf prerouting { policy drop; }",
        "add set inet meshaccel_ipvs_bpf other { type ipv4_addr; }",
    ],
)
def test_what_somebody_else_does_to_it_is_drift(client: NetworkNamespace, script: str) -> None:
    del client
    make(TABLE)
    nft.apply(script + "\n")
    assert make(TABLE)
    assert notrack.observe().table == TABLE


def test_absent_removes_ours_and_leaves_the_others(client: NetworkNamespace) -> None:
    del client
    make(TABLE)
    assert make(None)
    assert not make(None)
    assert listed() == '["marking"]'


def test_the_way_back_from_a_plan(client: NetworkNamespace) -> None:
    del client
    for before, wished in ((None, TABLE), (Table(LOW, LOW << 2), TABLE), (TABLE, None)):
        make(before)
        plan = notrack.make_plan(wished, notrack.observe())
        engine.apply(plan, notrack.handlers())
        assert notrack.observe().table == wished
        assert engine.undo(plan, notrack.handlers()) == ()
        assert notrack.observe().table == before


def listed() -> str:
    """Return what there is of tables, and of rules in ours."""
    found = nft.listing("ruleset")
    rules = [part["rule"]["expr"] for part in found if part.get("rule", {}).get("table") == notrack.NAME]
    tables = [part["table"]["name"] for part in found if "table" in part]
    return json.dumps(rules + tables)
