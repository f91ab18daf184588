"""How ipvs_bpf switches: what is waited for, reserved, forgotten and told; and an operator's word."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf import layout, mode_handlers, sessions
from meshaccel.accelerators.ipvs_bpf.layout import FlowKind, Point, ProgramMode
from meshaccel.accelerators.ipvs_bpf.sessions import Key
from meshaccel.bpf import maps
from meshaccel.errors import ApplyFailed
from meshaccel.model import Action, Mode
from tests.kernel.directors import Director, director
from tests.kernel.test_ipvs_bpf_lifecycle import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WISH = {"mode": "bpf", "follow": "all", "observe_seconds": 0, "drain_seconds": 0}
FIRST_PORT = 2000
#: Has conntrack work in the namespace.
TRACKING = (
    "table inet tracking { chain output { type filter hook output priority 0; ct state new counter; }; }"
)
CLIENT, SERVICE = "198.51.100.7", "10.96.0.1"


@pytest.fixture
def own() -> Iterator[Director]:
    with director() as made:
        yield made


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a switch has waited for, in seconds; none of it is."""
    waited: list[float] = []
    instead_of_sleep(monkeypatch, waited.append)
    return waited


def instead_of_sleep(monkeypatch: pytest.MonkeyPatch, act: Callable[[float], object]) -> None:
    """Do something else where a switch would sleep; what subprocess sleeps is shorter."""
    sleep = time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda seconds: (act if seconds >= mode_handlers.PAUSE_SECONDS else sleep)(seconds)
    )


def address(text: str) -> bytes:
    return bytes(layout.packed(ipaddress.ip_address(text)))


def request(port: int = 40000) -> Key:
    """Return the key of a client's request to the service."""
    return Key(address(CLIENT), address(SERVICE), port, 80, socket.IPPROTO_TCP, Point.INGRESS)


def begin(own: Director, *ports: int, flags: int = layout.MASQUERADED) -> None:
    """Have sessions in the table of flows, as packets would make them."""
    with maps.Map.pinned(own.node.pins.map("flows"), layout.FlowKey, layout.Flow) as flows:
        for port in ports:
            flow = layout.Flow(kind=FlowKind.REQUEST, flags=flags, last_seen=sessions.monotonic())
            flows.write(sessions.packed_key(request(port)), flow)


def kinds(own: Director) -> list[int]:
    """Return the kinds of what is in the table of flows."""
    return sorted(flow.kind for flow in sessions.read(own.node.pins).values())


# ---- an operator's word while a run goes on ----


@pytest.mark.parametrize("held", [Mode.OFF, Mode.DRAIN])
@pytest.mark.parametrize("moment", ["observe", "reserve", "set_mode"])
def test_what_an_operator_says_in_the_middle_of_a_run_holds(
    own: Director, slept: list[float], moment: str, held: Mode
) -> None:
    def intervene(action: Action) -> None:
        if action.kind == f"ipvs_bpf.{moment}":
            own.node.switch_live(held)
            own.node.hold(held)

    with own.inside():
        wish = own.node.parse({**WISH, "observe_seconds": 1})
        own.node.converge(wish, before_action=intervene)
    assert loaded(own).mode.value == held.value
    # What is not observed is not waited for either.
    assert slept == ([] if moment == "observe" else [1.0])
    assert not own.converge(observe_seconds=1).changed


def test_how_many_sessions_an_off_ends(own: Director) -> None:
    own.converge()
    begin(own, 1, 2)
    begin(own, 3, flags=0)
    begin(own, 4, flags=layout.MASQUERADED | layout.RESET)
    with own.inside():
        assert own.node.switch_live(Mode.DRAIN) == 0
        assert own.node.switch_live(Mode.OFF) == 2


# ---- what is waited for ----


def test_flows_are_observed_for_as_long_as_is_wished(own: Director, slept: list[float]) -> None:
    own.converge(observe_seconds=7)
    assert slept == [7.0]


def test_sessions_that_do_not_end_are_told(own: Director) -> None:
    own.converge()
    begin(own, 1)
    begin(own, 2, flags=0)
    assert own.converge(mode="native").notes == (
        "2 sessions had not ended after 0 s; 1 of them, masqueraded, are broken off",
    )


def test_sessions_are_waited_for_and_not_longer_than_they_last(
    own: Director, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.converge()
    begin(own, 1)
    waits: list[ProgramMode] = []

    def sleep(_: float) -> None:
        waits.append(loaded(own).mode)
        if len(waits) == 3:
            mode_handlers.delete(own.node.pins, [request(1)])

    instead_of_sleep(monkeypatch, sleep)
    result = own.converge(mode="native", drain_seconds=3600)
    assert result.notes == ()
    assert waits == [ProgramMode.DRAIN] * 3


def test_a_drain_that_fails_is_turned_back_into_on_by_the_whole_way(
    own: Director, slept: list[float]
) -> None:
    own.converge()
    with tracked(own, FIRST_PORT):

        def fail(action: Action) -> None:
            if action.kind == "ipvs_bpf.drain":
                raise OSError(5, "injected")

        with own.inside():
            wish = own.node.parse({"mode": "native", "observe_seconds": 5})
            with pytest.raises(ApplyFailed) as caught:
                own.node.converge(wish, before_action=fail)
        assert caught.value.undo_errors == ()
    assert slept[-1] == 5.0
    assert loaded(own).mode is ProgramMode.ON
    assert kinds(own) == [FlowKind.RESERVED]


def test_what_is_left_from_before_an_off_is_forgotten(own: Director) -> None:
    own.converge()
    begin(own, 1)
    with own.inside():
        own.node.switch_live(Mode.OFF)
        own.node.hold(Mode.OFF)
        own.node.hold(Mode.ON)
    own.converge()
    assert kinds(own) == []


# ---- ports that conntrack has given away ----


@contextlib.contextmanager
def tracked(own: Director, *ports: int) -> Iterator[None]:
    """Have conntrack know datagrams from the uplink's address and these ports, for some seconds at least."""
    own.namespace.run(["nft", "-f", "-"], standard_input=TRACKING)
    own.namespace.configure(
        [["neighbour", "replace", "192.0.2.9", "lladdr", "02:00:00:00:00:01", "dev", "c0"]]
    )
    with own.inside():
        for port in ports:
            with socket.socket(type=socket.SOCK_DGRAM) as sender:
                sender.bind(("192.0.2.1", port))
                sender.sendto(b"packet", ("192.0.2.9", 53))
    yield


def test_ports_that_conntrack_has_are_reserved_as_far_as_sessions_could_get_them(own: Director) -> None:
    with tracked(own, 1023, 1024, FIRST_PORT, 29999, 30000):
        own.converge()
    reserved = {
        key.destination_port
        for key, flow in sessions.read(own.node.pins).items()
        if flow.kind == FlowKind.RESERVED
    }
    assert reserved == {1024, FIRST_PORT, 29999}


def test_a_table_too_small_for_them_is_told(own: Director) -> None:
    with tracked(own, *range(FIRST_PORT, FIRST_PORT + 9)):
        result = own.converge(maximum_sessions=1)
    assert result.notes == ("the table of flows is too full to reserve ports that conntrack has",)


def test_a_port_is_free_again_once_conntrack_has_given_it_back(own: Director) -> None:
    own.namespace.set_sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")
    with tracked(own, FIRST_PORT):
        own.converge()
    assert kinds(own) == [FlowKind.RESERVED]
    deadline = time.monotonic() + 20
    words: list[str] = []
    while not words and time.monotonic() < deadline:
        with own.inside():
            words = own.node.tend()
        time.sleep(0.2)
    assert words == ["1 reserved ports are free again"]
    assert kinds(own) == []


def test_flows_that_are_over_are_ended_where_no_timer_does(own: Director) -> None:
    own.converge()
    begin(own, 1)
    with maps.Map.pinned(own.node.pins.map("flows"), layout.FlowKey, layout.Flow) as flows:
        flows.write(sessions.packed_key(request(2)), layout.Flow(kind=FlowKind.REQUEST, last_seen=1))
    with own.inside():
        assert own.node.tend() == [], "a program has them age"
        ageing = own.node.pins.program(loaded(own).digest, layout.AGEING_PROGRAM)
        Path(ageing).unlink()
        assert own.node.tend() == ["1 flows were over"]
    assert list(sessions.read(own.node.pins)) == [request(1)]
