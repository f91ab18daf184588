"""Two sockets are one connection if their first bytes say so; a record is read as it was written."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.sockops.inspection import layout
from meshaccel.accelerators.sockops.inspection.reading import parse
from meshaccel.accelerators.sockops.inspection.sockets import Handshake, Pair, pairs
from meshaccel.bpf import layouts
from meshaccel.system import processes
from tests.unit.inspected import (
    CLIENT,
    CLIENT_FIRST,
    SERVER,
    SERVER_FIRST,
    client_socket,
    inspected,
    server_socket,
)

OBJECT = Path(__file__).resolve().parents[2] / "build" / "bpf" / "sockops_inspection.bpf.o"
LARGEST = (1 << 32) - 1


def test_the_two_ends_of_a_connection_are_joined_the_right_way_round() -> None:
    client, server = client_socket(), server_socket()
    for order in ([client, server], [server, client]):
        (found,) = pairs(order)
        assert found == Pair(client, server)
        assert found.client_handshake == Handshake(SERVER_FIRST, CLIENT_FIRST)
        assert found.server_handshake == found.client_handshake.swapped


def test_sequence_numbers_come_round() -> None:
    client = client_socket(send_base_sequence=LARGEST)
    (found,) = pairs([client, server_socket(receive_sequence=0)])
    assert found.client_handshake.send_sequence == 0


def test_sockets_of_other_first_bytes_are_not_joined() -> None:
    assert pairs([client_socket(), server_socket(receive_sequence=CLIENT_FIRST + 1)]) == []
    assert pairs([client_socket(), server_socket(send_base_sequence=SERVER_FIRST + 1)]) == []
    assert pairs([client_socket(), client_socket()]) == []


def test_of_equal_handshakes_none_is_joined_and_the_others_are() -> None:
    twins = [client_socket(cookie=1), client_socket(cookie=2)]
    other_client = client_socket(cookie=3, receive_sequence=90, send_base_sequence=70)
    other_server = server_socket(cookie=4, receive_sequence=71, send_base_sequence=90)
    assert pairs([*twins, server_socket(), other_client, other_server]) == [Pair(other_client, other_server)]


def test_a_socket_that_fits_one_as_client_and_another_as_server_is_joined_with_neither() -> None:
    between = inspected(CLIENT, SERVER, cookie=1, receive_sequence=50, send_base_sequence=10)
    as_client = server_socket(cookie=2, receive_sequence=11, send_base_sequence=50)
    as_server = client_socket(cookie=3, receive_sequence=10, send_base_sequence=49)
    assert pairs([between, as_client]) == [Pair(between, as_client)]
    assert pairs([between, as_server]) == [Pair(as_server, between)]
    assert pairs([between, as_client, as_server]) == []


def test_a_socket_that_is_connected_to_itself_is_no_pair() -> None:
    assert pairs([inspected(CLIENT, CLIENT, receive_sequence=11, send_base_sequence=10)]) == []
    assert pairs([inspected(CLIENT, CLIENT, receive_sequence=10, send_base_sequence=10)]) == []


def test_unread_and_unacknowledged_bytes_are_counted_across_the_wrap() -> None:
    socket = inspected(
        CLIENT,
        CLIENT,
        next_receive_sequence=5,
        copied_sequence=LARGEST,
        write_sequence=2,
        unacknowledged_sequence=LARGEST - 1,
    )
    assert (socket.unread_bytes, socket.unacknowledged_bytes) == (6, 4)


def test_records_are_read_as_they_are_declared() -> None:
    record = layout.Record(
        cookie=7,
        flags=layout.CORK | layout.STATE,
        local_port=80,
        receive_low_water_mark=3,
        upper_layer_protocol=b"tls",
    )
    record.local_address[:] = bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])
    record.state.redirected_bytes = 99
    plain = layout.Record(cookie=8)
    first, second = parse(bytes(record) + bytes(plain))
    assert (first.cookie, str(first.local), first.receive_low_water_mark) == (7, "127.0.0.1:80", 3)
    assert (first.cork, first.zero_copy, first.upper_layer_protocol) == (True, False, "tls")
    assert first.state is not None
    assert first.state.redirected_bytes == 99
    assert (second.cookie, second.state) == (8, None)


def test_the_flags_of_the_header_are_those_of_the_package() -> None:
    header = (OBJECT.parents[2] / "bpf/include/meshaccel/sockops_inspection.h").read_text()
    names = [name for name in vars(layout) if name.isupper() and isinstance(getattr(layout, name), int)]
    flags = {name: getattr(layout, name) for name in names if name != "PROTOCOL_NAME_BYTES"}
    assert len(flags) == 8
    for name, value in flags.items():
        assert f"SOCKOPS_INSPECTED_{name} = 1 << {value.bit_length() - 1}," in header


def test_the_built_object_passes_the_check() -> None:
    layouts.check(str(OBJECT), layout.STRUCTURES)
    assert ctypes.sizeof(layout.Record) % 8 == 0


@given(st.lists(st.tuples(st.integers(0, LARGEST), st.integers(0, LARGEST)), unique=True, max_size=50))
def test_whatever_the_numbers_each_socket_is_in_one_pair_at_most(numbers: list[tuple[int, int]]) -> None:
    sockets = [
        replace(one, cookie=2 * number + side)
        for number, (client_first, server_first) in enumerate(numbers)
        for side, one in enumerate(
            (
                client_socket(receive_sequence=server_first, send_base_sequence=(client_first - 1) & LARGEST),
                server_socket(receive_sequence=client_first, send_base_sequence=server_first),
            )
        )
    ]
    found = pairs(sockets)
    ends = [end.cookie for pair in found for end in (pair.client, pair.server)]
    assert len(ends) == len(set(ends))
    assert all(pair.client_handshake == pair.server_handshake.swapped for pair in found)


# ---- processes of cgroups ----


def test_processes_of_cgroups_below_are_found_and_gone_cgroups_are_none(tmp_path: Path) -> None:
    below = tmp_path / "pod" / "container"
    below.mkdir(parents=True)
    (tmp_path / "pod" / "cgroup.procs").write_text("0\n12\n")
    (below / "cgroup.procs").write_text("34\n")
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert processes.below([str(tmp_path / "pod"), str(tmp_path / "gone")]) == {12, 34}
