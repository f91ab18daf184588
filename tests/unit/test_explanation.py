"""What is said of a connection, for each situation there is: records in, cause and sentence out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.explanation.decision import explain
from meshaccel.accelerators.sockops.explanation.gathering import Choice, opposites
from meshaccel.accelerators.sockops.explanation.model import Connection, End, Program, Switches
from meshaccel.accelerators.sockops.explanation.output import as_json, lines
from meshaccel.accelerators.sockops.explanation.words import Cause, MessageReason, Reason, Status, Use
from meshaccel.model import Mode
from tests.unit.inspected import (
    CLIENT,
    LIMIT,
    SERVER,
    client_socket,
    connection,
    end,
    inspected,
    server_socket,
    tracked,
)

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.inspection.sockets import TrackedState

ON = Switches(Mode.ON)
CLOSE_WAIT = 8
IDLE = tracked(Status.PAIRED)
MOVING = tracked(Status.PAIRED, redirected_bytes=7)
WAITING = tracked(Status.WAITING)


def plain(reason: Reason) -> TrackedState:
    return tracked(Status.PLAIN, reason)


def went(reason: MessageReason) -> TrackedState:
    return tracked(Status.PAIRED, last_message=reason, redirected_bytes=7)


#: What sockops remembers of the client's and of the server's end, and the cause that follows.
BOTH_OPTED_IN = [
    (IDLE, IDLE, Cause.NO_MESSAGE),
    (WAITING, IDLE, Cause.NO_MESSAGE),
    (MOVING, MOVING, Cause.REDIRECTED),
    (IDLE, MOVING, Cause.REDIRECTED),
    (went(MessageReason.ORDER), MOVING, Cause.RESUMES),
    (went(MessageReason.MODE), MOVING, Cause.RESUMES),
    (went(MessageReason.NO_PEER), MOVING, Cause.RESUMES),
    (MOVING, went(MessageReason.PEER_GONE), Cause.PEER_GONE),
    (MOVING, went(MessageReason.LEAVING), Cause.LEAVING),
    (MOVING, went(MessageReason.ADOPTION), Cause.ADOPTION),
    (tracked(Status.ADOPTED), IDLE, Cause.ADOPTION),
    (tracked(Status.LEAVING, Reason.STREAM), IDLE, Cause.STREAM),
    (tracked(Status.LEAVING, Reason.PEER_LEFT), tracked(Status.LEAVING, Reason.STREAM), Cause.STREAM),
    (tracked(Status.LEAVING, Reason.PEER_LEFT), plain(Reason.STREAM), Cause.STREAM),
    (tracked(Status.LEAVING), MOVING, Cause.LEAVING),
    (plain(Reason.PEER_LEFT), plain(Reason.STREAM), Cause.STREAM),
    (plain(Reason.NO_PEER), plain(Reason.PORT), Cause.PORT),
    (WAITING, plain(Reason.TABLE_FULL), Cause.TABLE_FULL),
    (plain(Reason.DUPLICATE), None, Cause.DUPLICATE),
    (plain(Reason.OTHER), None, Cause.REFUSED),
    (plain(Reason.MODE), None, Cause.OPENED_WHILE_OFF),
    (plain(Reason.MULTIPATH), None, Cause.MULTIPATH),
    (plain(Reason.RELEASED), plain(Reason.RELEASED), Cause.RELEASED),
    (plain(Reason.DENIED), None, Cause.DENIED),
    (plain(Reason.NO_PEER), plain(Reason.RELAY), Cause.RELAY),
    (plain(Reason.NOT_ADOPTED), plain(Reason.NOT_ADOPTED), Cause.NOT_ADOPTED),
    (plain(Reason.NO_PEER), None, Cause.OPENED_BEFORE),
    (plain(Reason.NONE), None, Cause.OPENED_BEFORE),
    (None, None, Cause.OPENED_BEFORE),
]


@pytest.mark.parametrize(("client", "server", "cause"), BOTH_OPTED_IN)
def test_the_cause_follows_from_what_both_ends_remember(
    client: TrackedState | None, server: TrackedState | None, cause: Cause
) -> None:
    found = explain(connection(client, server), ON)
    assert found.verdict.cause is cause
    assert found.redirected is (cause in (Cause.NO_MESSAGE, Cause.REDIRECTED))
    assert "{" not in found.verdict.sentence


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.DRAIN])
@pytest.mark.parametrize(("client", "server", "cause"), BOTH_OPTED_IN)
def test_every_situation_has_a_sentence_in_every_mode(
    client: TrackedState | None, server: TrackedState | None, cause: Cause, mode: Mode
) -> None:
    found = explain(connection(client, server), Switches(mode)).verdict
    if mode is Mode.OFF:
        assert found.cause is Cause.NODE_OFF
    else:
        assert found.cause is (Cause.DRAIN if cause is Cause.OPENED_BEFORE else cause)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "sockops_adopt_existing takes it over"),
        ({"urgent_data": True}, "it cannot be adopted: it has urgent data"),
    ],
)
def test_a_connection_from_before_says_whether_it_can_be_adopted(
    changes: dict[str, object], words: str
) -> None:
    found = explain(connection(None, plain(Reason.NO_PEER), **changes), ON).verdict
    assert found.sentence == f"opened before sockops was on for both its ends; {words}"


# ---- one direction of two ----


def test_a_direction_that_waits_for_order_says_for_how_many_bytes() -> None:
    behind = connection(went(MessageReason.ORDER), MOVING, write_sequence=1234)
    found = explain(behind, ON).verdict
    assert found.cause is Cause.ORDER
    assert found.sentence == (f"from {CLIENT}: waits for order: 1234 bytes that went by TCP are not read yet")


def test_a_reader_that_is_behind_is_told_with_its_limit() -> None:
    reader = end(server_socket(state=MOVING, receive_memory=65000), "app")
    writer = end(client_socket(state=went(MessageReason.MEMORY)), "envoy")
    found = explain(Connection(writer, reader), ON).verdict
    assert found.cause is Cause.MEMORY
    assert f"behind by 65000 bytes, the limit is {LIMIT}" in found.sentence


def test_both_directions_are_told_if_neither_is_redirected() -> None:
    found = explain(connection(went(MessageReason.PEER_GONE), went(MessageReason.LEAVING)), ON).verdict
    assert found.cause is Cause.PEER_GONE
    assert f"from {CLIENT}: the peer is closing" in found.sentence
    assert f"; from {SERVER}: on its way back to TCP" in found.sentence


# ---- switches ----


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        (Switches(Mode.OFF), "sockops is off on this node, as the playbook wishes"),
        (
            Switches(Mode.OFF, held_mode=Mode.OFF),
            "sockops is off on this node, held by an operator; lift with: meshaccel on sockops",
        ),
    ],
)
def test_off_says_by_whom(switches: Switches, words: str) -> None:
    assert explain(connection(MOVING, MOVING), switches).verdict.sentence == words


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        (ON, "sockops is off for cgroup app, as the playbook wishes"),
        (
            Switches(Mode.ON, held_cgroups={"app": Mode.OFF}),
            (
                "sockops is off for cgroup app, "
                "held by an operator; lift with: meshaccel on sockops --cgroup app"
            ),
        ),
        (
            Switches(Mode.ON, denied_cgroups={"app": "haproxy (process 7)"}),
            (
                "sockops is off for cgroup app, "
                "because of haproxy (process 7), which is in sockops_denied_executables"
            ),
        ),
    ],
)
def test_a_cgroup_that_is_off_says_by_whom(switches: Switches, words: str) -> None:
    ends = Connection(
        end(client_socket(state=MOVING), "envoy"), end(server_socket(state=MOVING), "app", mode=Mode.OFF)
    )
    found = explain(ends, switches)
    assert (found.verdict.cause, found.verdict.sentence) == (Cause.CGROUP_OFF, words)


def test_a_draining_cgroup_is_named_for_what_it_did_not_take() -> None:
    ends = Connection(end(client_socket(), "envoy"), end(server_socket(), "app", mode=Mode.DRAIN))
    found = explain(ends, ON).verdict
    assert found.cause is Cause.DRAIN
    assert "cgroup app drains" in found.sentence


# ---- who is at the ends ----


def test_each_end_that_is_not_opted_in_is_named_and_no_other() -> None:
    outside = end(server_socket(), "app", opted_in=False)
    one = explain(Connection(end(client_socket(), "envoy"), outside), Switches(Mode.OFF)).verdict
    assert (one.cause, one.sentence) == (Cause.NOT_OPTED_IN, "not opted in: app (process 80) in cgroup app")
    both = explain(Connection(end(client_socket(), "envoy", opted_in=False), outside), ON).verdict
    assert both.sentence.startswith("not opted in: envoy (process 40000) in cgroup envoy, app (process 80)")


def test_an_end_without_program_or_cgroup_is_named_by_its_address() -> None:
    found = explain(Connection(End(client_socket(), None, None)), ON).verdict
    assert found.sentence == f"not opted in: the end at {CLIENT} in a cgroup that is gone"


@pytest.mark.parametrize(
    ("state", "tcp_state", "opposite", "cause"),
    [
        (None, 1, False, Cause.OTHER_NODE),
        (plain(Reason.NO_PEER), 1, False, Cause.OTHER_NODE),
        (WAITING, 1, False, Cause.OTHER_NODE),
        (None, 1, True, Cause.SEQUENCE_REWRITTEN),
        (tracked(Status.PAIRED, peer_cookie=9), 1, False, Cause.PEER_CLOSED),
        (None, CLOSE_WAIT, False, Cause.PEER_CLOSED),
    ],
)
def test_an_end_alone(state: TrackedState | None, tcp_state: int, cause: Cause, *, opposite: bool) -> None:
    alone = end(client_socket(state=state, tcp_state=tcp_state), "envoy")
    for mode in Mode:
        assert explain(Connection(alone, None, opposite), Switches(mode)).verdict.cause is cause


def test_multipath_is_told_whoever_the_peer_is() -> None:
    assert explain(connection(None, None, multipath=True), ON).verdict.cause is Cause.MULTIPATH
    alone = Connection(end(client_socket(multipath=True), "envoy"))
    assert explain(alone, ON).verdict.cause is Cause.MULTIPATH


def test_only_a_single_unpaired_socket_of_the_opposite_addresses_hints_at_rewritten_numbers() -> None:
    client, server = client_socket(cookie=1), server_socket(cookie=2)
    assert opposites([client, server]) == {1, 2}
    assert opposites([client]) == set()
    assert opposites([client, server, server_socket(cookie=3)]) == set()
    assert opposites([inspected(CLIENT, CLIENT)]) == set()


# ---- bytes ----


def test_bytes_are_those_of_both_directions() -> None:
    ends = Connection(
        end(client_socket(state=MOVING, bytes_sent=10, bytes_received=5), "envoy"),
        end(server_socket(state=MOVING, bytes_sent=5, bytes_received=10), "app"),
    )
    found = explain(ends, ON)
    assert (found.redirected_bytes, found.tcp_bytes) == (14, 15)


def test_of_an_end_alone_what_it_received_counts_without_the_fin() -> None:
    alone = end(client_socket(bytes_sent=10, bytes_received=6, tcp_state=CLOSE_WAIT), "envoy")
    assert explain(Connection(alone), ON).tcp_bytes == 15


# ---- incompatible uses ----


@pytest.mark.parametrize(
    ("change", "use"),
    [
        ({"receive_low_water_mark": 2}, Use.LOW_WATER_MARK),
        ({"cork": True}, Use.CORK),
        ({"zero_copy": True}, Use.ZERO_COPY),
        ({"urgent_data": True}, Use.URGENT),
        ({"upper_layer_protocol": "tls"}, Use.KERNEL_TLS),
    ],
)
def test_what_a_socket_shows_is_said_with_its_program(change: dict[str, object], use: Use) -> None:
    (found,) = explain(connection(MOVING, MOVING, **change), ON).uses
    assert found.use is use
    assert found.sentence.startswith("envoy (process 40000) ")


def test_another_upper_layer_protocol_is_no_kernel_tls() -> None:
    assert explain(connection(MOVING, MOVING, upper_layer_protocol="mptcp"), ON).uses == ()


def test_what_a_program_shows_is_said_at_the_socket_it_concerns() -> None:
    program = Program(5, "haproxy", frozenset({Use.SPLICE}), waits_for_all=frozenset({CLIENT.port}))
    ends = connection(MOVING, MOVING)
    assert ends.far is not None
    shared = Connection(replace(ends.near, programs=(program,)), replace(ends.far, programs=(program,)))
    uses = [found.use for found in explain(shared, ON).uses]
    assert uses == [Use.SPLICE, Use.WAIT_ALL, Use.SPLICE]


def test_uses_of_ends_that_are_not_opted_in_are_nobodys_concern() -> None:
    outside = end(client_socket(cork=True), "envoy", opted_in=False)
    assert explain(Connection(outside), ON).uses == ()


# ---- choice and output ----


@pytest.mark.parametrize("number", [None, CLIENT.port, SERVER.port, 1])
def test_a_number_means_either_ends_port_or_process(number: int | None) -> None:
    chosen = replace(connection(None, None).near, programs=(Program(1, "envoy"),))
    assert Choice(number).takes(Connection(chosen))


def test_another_number_means_nothing() -> None:
    assert not Choice(2).takes(connection(None, None))


def test_the_text_says_all_there_is_and_counts_the_causes() -> None:
    one = explain(connection(MOVING, MOVING, cork=True), ON)
    other = explain(Connection(end(client_socket(), "envoy")), ON)
    assert list(lines([one, other])) == [
        f"{CLIENT} -> {SERVER}",
        "  redirected: from socket to socket",
        "  bytes: 14 from socket to socket, 0 by TCP",
        f"  client: envoy (process 40000), cgroup envoy, at {CLIENT}",
        f"  server: app (process 80), cgroup app, at {SERVER}",
        f"{CLIENT} -- {SERVER}",
        f"  by TCP: its peer {SERVER} is on another node",
        "  bytes: 0 from socket to socket, 0 by TCP",
        f"  here: envoy (process 40000), cgroup envoy, at {CLIENT}",
        "incompatible, at 1 of them: envoy (process 40000) sets TCP_CORK: no effect; MSG_MORE is fine",
        "connections: 2 (1 redirected, 1 other_node)",
    ]


def test_a_node_without_connections_says_so() -> None:
    assert list(lines([])) == ["connections: 0"]


def test_the_json_says_the_same() -> None:
    found = as_json(explain(connection(MOVING, None, cork=True), ON))
    assert (found["redirected"], found["cause"]) == (False, "opened_before")
    assert found["bytes"] == {"redirected": 7, "tcp": 0}
    assert found["incompatible"][0]["use"] == "cork"
    assert found["ends"]["server"] == {
        "local": str(SERVER),
        "remote": str(CLIENT),
        "network_namespace": 1,
        "cgroup": "app",
        "opted_in_by": "app",
        "programs": [{"process": 80, "name": "app"}],
    }
