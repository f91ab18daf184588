"""clsact and filters at a device of a namespace; tc and bpftool are the independent eyes."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from meshaccel.bpf import attach, libbpf, ownership, traffic_control
from meshaccel.bpf.traffic_control import PRIORITY, Direction, Hook
from meshaccel.errors import NotOurs
from meshaccel.system import network_namespaces
from tests.kernel import compiled
from tests.support.bpffs import own_bpffs
from tests.support.namespaces import Attachment, NetworkNamespace, connect
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEVICE = "inner"
ADDRESS = "10.99.0.1"
PORT = 9999
MARK = 7
REPLACEMENTS = 200
EVERYTHING = ("u32", "match", "u32", "0", "0", "flowid", "1:1")
#: Counts what has passed a program, and what has not.
COUNTING = f"""
table inet count {{
  chain arriving {{
    type filter hook prerouting priority 0;
    udp dport {PORT} meta mark {MARK} counter
    udp dport {PORT} meta mark != {MARK} counter
  }}
}}
"""


@dataclass(frozen=True)
class Programs:
    """Descriptors of two loads of our program, the pin of somebody else's, and of ours."""

    first: int
    second: int
    foreign: Path
    ours: Path


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with own_bpffs() as bpffs, contextlib.ExitStack() as stack:
        for load in ("first", "second"):
            run(["bpftool", "prog", "loadall", str(compiled.classifier()), str(bpffs / load), "type", "tc"])
        first, second = (
            stack.enter_context(ownership.opened(str(bpffs / load / "meshaccel_test")))
            for load in ("first", "second")
        )
        yield Programs(first, second, bpffs / "first" / "foreign", bpffs / "first" / "meshaccel_test")


@pytest.fixture
def wire() -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    """A namespace with DEVICE, and the one at its other end."""
    with NetworkNamespace("node") as node, NetworkNamespace("client") as client:
        connect(Attachment(node, DEVICE, (f"{ADDRESS}/24",)), Attachment(client, "outer", ("10.99.0.2/24",)))
        yield node, client


@pytest.fixture
def device(wire: tuple[NetworkNamespace, NetworkNamespace]) -> Iterator[int]:
    """The device's index, with the test's thread in its namespace."""
    with network_namespaces.entered(str(wire[0].path)):
        yield socket.if_nametoindex(DEVICE)


def tc(*words: str) -> list[dict[str, object]]:
    """Run tc in the calling thread's namespace."""
    answer = run(["tc", "-j", *words])
    found: list[dict[str, object]] = json.loads(answer or "[]")
    return found


def clsact_handles() -> list[str]:
    return [str(each["kind"]) for each in tc("qdisc", "show", "dev", DEVICE) if each["kind"] == "clsact"]


def test_a_device_with_nothing(device: int) -> None:
    assert traffic_control.observe(device) == Hook(clsact=False)
    traffic_control.detach(device, Direction.INGRESS)
    assert not traffic_control.remove_clsact_if_empty(device)


def test_the_way_there_and_back(device: int, programs: Programs, capfd: pytest.CaptureFixture[str]) -> None:
    traffic_control.add_clsact(device)
    traffic_control.add_clsact(device)
    assert traffic_control.observe(device) == Hook(clsact=True)
    for direction in Direction:
        traffic_control.attach(device, direction, programs.first)
    hook = traffic_control.observe(device)
    assert hook.clsact
    assert hook.foreign == ()
    for direction in Direction:
        ours = hook.filter(direction)
        assert ours is not None
        assert (ours.direction, ours.priority, ours.handle) == (direction, PRIORITY, 1)
        (seen,) = [each for each in tc("filter", "show", "dev", DEVICE, direction.value) if "options" in each]
        options = seen["options"]
        assert isinstance(options, dict)
        assert options["prog"]["id"] == ours.program_id
        assert options["direct-action"]
        assert not traffic_control.remove_clsact_if_empty(device)
        traffic_control.detach(device, direction)
        traffic_control.detach(device, direction)
        assert tc("filter", "show", "dev", DEVICE, direction.value) == []
    assert clsact_handles() == ["clsact"]
    assert traffic_control.remove_clsact_if_empty(device)
    assert clsact_handles() == []
    assert traffic_control.observe(device) == Hook(clsact=False)
    assert capfd.readouterr() == ("", "")


def test_no_packet_is_without_a_program_while_it_is_replaced(
    wire: tuple[NetworkNamespace, NetworkNamespace], device: int, programs: Programs
) -> None:
    node, client = wire
    node.run(["nft", "-f", "-"], standard_input=COUNTING)
    traffic_control.add_clsact(device)
    traffic_control.attach(device, Direction.INGRESS, programs.first)
    identifiers = set()
    with sending(client):
        for _ in range(REPLACEMENTS):
            for program in (programs.second, programs.first):
                traffic_control.attach(device, Direction.INGRESS, program)
                found = traffic_control.observe(device).ingress
                assert found is not None
                identifiers.add(found.program_id)
    with_program, without = [
        expression["counter"]["packets"]
        for part in json.loads(node.run(["nft", "-j", "list", "table", "inet", "count"]))["nftables"]
        if "rule" in part
        for expression in part["rule"]["expr"]
        if "counter" in expression
    ]
    assert with_program > REPLACEMENTS
    assert without == 0
    assert len(identifiers) == 2


@contextlib.contextmanager
def sending(client: NetworkNamespace) -> Iterator[None]:
    """Send packets to the device as fast as one thread can meanwhile."""
    ended = threading.Event()

    def send() -> None:
        with (
            network_namespaces.entered(str(client.path)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.connect((ADDRESS, PORT))
            while not ended.is_set():
                # Nobody listens, and ICMP says so.
                with contextlib.suppress(ConnectionRefusedError):
                    sender.send(b"packet")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("handle", ["1", "2"])
def test_somebody_else_at_our_priority_is_named_and_stays(
    device: int, programs: Programs, handle: str
) -> None:
    traffic_control.add_clsact(device)
    place = ["dev", DEVICE, "ingress", "prio", str(PRIORITY), "handle", handle]
    tc("filter", "add", *place, "bpf", "da", "object-pinned", str(programs.foreign))
    with pytest.raises(NotOurs, match=rf"ingress priority {PRIORITY} bpf .*\(program \d+\)"):
        traffic_control.attach(device, Direction.INGRESS, programs.first)
    traffic_control.attach(device, Direction.EGRESS, programs.first)
    traffic_control.detach(device, Direction.INGRESS)
    (described,) = traffic_control.observe(device).foreign
    assert described.startswith(f"ingress priority {PRIORITY} bpf")
    traffic_control.detach(device, Direction.EGRESS)
    assert not traffic_control.remove_clsact_if_empty(device)


def test_a_program_of_our_name_elsewhere_is_not_ours(device: int, programs: Programs) -> None:
    """As somebody hangs it up by hand."""
    traffic_control.add_clsact(device)
    for place in (["prio", "5", "handle", "1"], ["prio", str(PRIORITY), "handle", "2"]):
        tc(
            "filter",
            "add",
            "dev",
            DEVICE,
            "ingress",
            *place,
            "bpf",
            "da",
            "object-pinned",
            str(programs.ours),
        )
    hook = traffic_control.observe(device)
    assert hook.ingress is None
    assert [described.split(" bpf ")[0] for described in hook.foreign] == [
        "ingress priority 5",
        f"ingress priority {PRIORITY}",
    ]
    with pytest.raises(NotOurs):
        traffic_control.attach(device, Direction.INGRESS, programs.first)
    traffic_control.detach(device, Direction.INGRESS)
    assert len(traffic_control.observe(device).foreign) == 2


def test_filters_of_others_are_described(device: int, programs: Programs) -> None:
    tc("qdisc", "add", "dev", DEVICE, "clsact")
    tc("filter", "add", "dev", DEVICE, "egress", "prio", "5", *EVERYTHING)
    traffic_control.add_clsact(device)
    traffic_control.attach(device, Direction.INGRESS, programs.first)
    hook = traffic_control.observe(device)
    assert hook.foreign == ("egress priority 5 u32",)
    assert hook.ingress is not None
    traffic_control.detach(device, Direction.INGRESS)
    assert not traffic_control.remove_clsact_if_empty(device)


def test_another_qdisc_at_its_place_is_named_and_stays(device: int) -> None:
    tc("qdisc", "add", "dev", DEVICE, "ingress")
    tc("filter", "add", "dev", DEVICE, "ingress", "prio", "5", *EVERYTHING)
    assert traffic_control.observe(device) == Hook(
        clsact=False, foreign=("qdisc ingress", "ingress priority 5 u32"), occupant="qdisc ingress"
    )
    with pytest.raises(NotOurs, match="the qdisc ingress"):
        traffic_control.add_clsact(device)
    assert not traffic_control.remove_clsact_if_empty(device)


@pytest.mark.machine
def test_programs_of_tcx_are_described(device: int, programs: Programs) -> None:
    """They run before clsact's filters. It goes with the device."""
    with ownership.opened(str(programs.foreign)) as foreign:
        libbpf.library().call("attach", "bpf_prog_attach", foreign, device, traffic_control.TCX_EGRESS, 0)
        identifier = attach.program_id(foreign)
    assert traffic_control.observe(device).foreign == (f"egress tcx foreign (program {identifier})",)


def test_a_device_that_is_gone(device: int, programs: Programs) -> None:
    run(["ip", "link", "del", DEVICE])
    traffic_control.detach(device, Direction.INGRESS)
    for act in (
        lambda: traffic_control.observe(device),
        lambda: traffic_control.add_clsact(device),
        lambda: traffic_control.attach(device, Direction.INGRESS, programs.first),
    ):
        with pytest.raises(OSError, match=r"No such device|Cannot find") as failed:
            act()
        assert failed.value.errno == errno.ENODEV
