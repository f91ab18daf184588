"""Lines of connection tracking's table, as the kernel's file and conntrack(8) have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshaccel.errors import Unsupported
from meshaccel.system import conntrack, tools
from meshaccel.system.conntrack import Direction, Flow

MASQUERADED = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.9.9 dst=192.0.2.1 sport=40000 dport=80 "
    "src=10.1.0.5 dst=10.0.0.1 sport=8080 dport=1024 [ASSURED] mark=0 zone=0 use=2"
)
COUNTED = (
    "ipv4     2 udp      17 29 src=10.0.9.9 dst=192.0.2.1 sport=40001 dport=53 packets=1 bytes=56 "
    "[UNREPLIED] src=10.1.0.5 dst=10.0.0.1 sport=53 dport=1025 packets=0 bytes=0 mark=0 zone=0 use=2"
)
# Its end, not its reply, is the address.
TO_OURSELVES = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.9.9 dst=10.0.0.1 sport=40000 dport=22 "
    "src=10.0.0.1 dst=10.0.9.9 sport=22 dport=40000 [ASSURED] mark=0 zone=0 use=2"
)
ECHO = (
    "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.9.9 type=8 code=0 id=77 "
    "src=10.0.9.9 dst=10.0.0.1 type=0 code=0 id=77 mark=0 zone=0 use=2"
)
LONGER_ADDRESS = MASQUERADED.replace("dst=10.0.0.1 ", "dst=10.0.0.11 ")
IPV6 = (
    "ipv6     10 tcp      6 102 SYN_SENT src=fd00:0000:0000:0000:0000:0000:0000:0009 "
    "dst=fd00:0096:0000:0000:0000:0000:0000:0001 sport=40000 dport=443 [UNREPLIED] "
    "src=fd00:0001:0000:0000:0000:0000:0000:0005 dst=fd00:0000:0000:0000:0000:0000:0000:0001 "
    "sport=8443 dport=1024 mark=0 zone=0 use=2"
)
BY_TOOL6 = (
    "ipv6     10 udp      17 29 src=fd00::9 dst=fd00:96::1 sport=40000 dport=53 [UNREPLIED] "
    "src=fd00:1::5 dst=fd00::1 sport=53 dport=1025 mark=0 use=1"
)
LINES = (
    MASQUERADED,
    COUNTED,
    TO_OURSELVES,
    ECHO,
    LONGER_ADDRESS,
    IPV6,
    BY_TOOL6,
    "",
    "no flow dst=10.0.0.1 x",
)
OURS = frozenset({"10.0.0.1", "fd00::1"})
TABLE_COMMAND = ["conntrack", "-L", "-f", "ipv4", "-o", "extended"]


def test_the_flows_whose_replies_go_to_an_address() -> None:
    assert list(conntrack.select(LINES, OURS)) == [
        Flow(
            "tcp",
            Direction("10.0.9.9", "192.0.2.1", 40000, 80),
            Direction("10.1.0.5", "10.0.0.1", 8080, 1024),
        ),
        Flow(
            "udp", Direction("10.0.9.9", "192.0.2.1", 40001, 53), Direction("10.1.0.5", "10.0.0.1", 53, 1025)
        ),
        Flow("icmp", Direction("10.0.0.1", "10.0.9.9", 0, 0), Direction("10.0.9.9", "10.0.0.1", 0, 0)),
        Flow(
            "tcp",
            Direction("fd00::9", "fd00:96::1", 40000, 443),
            Direction("fd00:1::5", "fd00::1", 8443, 1024),
        ),
        Flow(
            "udp", Direction("fd00::9", "fd00:96::1", 40000, 53), Direction("fd00:1::5", "fd00::1", 53, 1025)
        ),
    ]


def test_without_addresses_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "read_lines", lambda: pytest.fail("read"))
    assert conntrack.replies_to(()) == ()
    monkeypatch.setattr(conntrack, "present", lambda: False)
    assert conntrack.replies_to(("10.0.0.1",)) == ()


def test_the_kernel_s_own_file_comes_first(tmp_path: Path) -> None:
    table = tmp_path / "nf_conntrack"
    table.write_text(MASQUERADED + "\n" + IPV6 + "\n", encoding="ascii")
    assert [line.strip() for line in conntrack.read_lines(str(table))] == [MASQUERADED, IPV6]


def test_without_it_the_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {"ipv4": COUNTED + "\n", "ipv6": BY_TOOL6 + "\n"}

    def run(command: list[str], *, package: str) -> str:
        assert command == [*TABLE_COMMAND[:3], command[3], *TABLE_COMMAND[4:]]
        del package
        return outputs[command[3]]

    monkeypatch.setattr(tools, "run", run)
    assert list(conntrack.read_lines(str(tmp_path / "none"))) == [COUNTED, BY_TOOL6]


def test_without_either_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tools.ENVIRONMENT, "PATH", os.fspath(tmp_path))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(Unsupported, match="install conntrack"):
        list(conntrack.read_lines(str(tmp_path / "none")))
