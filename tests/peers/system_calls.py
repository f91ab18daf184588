"""Calls on a TCP socket that a kernel may answer otherwise for one in a sockhash, and what comes of each.

Each takes a connection over which nothing is under way, and returns what the caller of the call sees.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.connections import Connection

    Call = Callable[[Connection], str]

#: Of linux/socket.h, linux/tcp.h and linux/splice.h; the standard library does not name them.
SO_ZEROCOPY = 60
MSG_ZEROCOPY = 0x4000000
TCP_INQ = 36
SPLICE_F_NONBLOCK = 2
SO_TIMESTAMPNS = 35

#: What a call may take that answers by itself, and how long a call that waits is left waiting.
SECONDS = 5.0
MOMENT = 0.1
#: A corked segment leaves by itself after 0.2 s.
CORK_MOMENT = 0.05
TRIES = 10
FIRST, SECOND = b"first", b"second"


def wait_for_all(connection: Connection) -> str:
    """recv() with MSG_WAITALL, for as much as comes by two writes."""
    length = len(FIRST + SECOND)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(connection.server.socket.recv, length, socket.MSG_WAITALL)
        send_apart(connection)
        return told(waiting.result(SECONDS))


def wait_for_a_least_number(connection: Connection) -> str:
    """recv() with SO_RCVLOWAT above the first write."""
    reader = connection.server.socket
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(FIRST) + 1)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(reader.recv, 100)
        send_apart(connection)
        return told(waiting.result(SECONDS))


def poll_for_a_least_number(connection: Connection) -> str:
    """poll() with SO_RCVLOWAT above what is there."""
    reader = connection.server.socket
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(FIRST) + 1)
    connection.client.socket.sendall(FIRST)
    return readable(reader, MOMENT)


def cork(connection: Connection) -> str:
    """What a reader sees while the writer holds its bytes back by TCP_CORK."""
    writer, reader = connection.client.socket, connection.server.socket
    writer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    writer.sendall(FIRST)
    return readable(reader, CORK_MOMENT)


def more_to_come(connection: Connection) -> str:
    """send() with MSG_MORE and the rest after it."""
    writer, reader = connection.client.socket, connection.server.socket
    writer.send(FIRST, socket.MSG_MORE)
    writer.send(SECOND)
    return told(receive(reader, len(FIRST + SECOND)))


def zero_copy(connection: Connection) -> str:
    """Whether a MSG_ZEROCOPY send is reported as done."""
    writer, reader = connection.client.socket, connection.server.socket
    writer.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    writer.send(FIRST, MSG_ZEROCOPY)
    receive(reader, len(FIRST))
    return "done" if polled(writer, select.POLLERR, MOMENT) else "never done"


def urgent_data(connection: Connection) -> str:
    """What a read of urgent data gives, and then reads of the bytes around it."""
    writer, reader = connection.client.socket, connection.server.socket
    writer.send(FIRST)
    writer.send(b"!", socket.MSG_OOB)
    writer.send(SECOND)
    time.sleep(MOMENT)
    urgent = attempt(lambda: reader.recv(1, socket.MSG_OOB))
    reads = [attempt(lambda: reader.recv(100, socket.MSG_DONTWAIT)) for _ in range(2)]
    return f"urgent {urgent}, then {' and '.join(reads)}"


def splice_in(connection: Connection) -> str:
    """splice() from a non-blocking socket whose poll() says readable."""
    connection.client.socket.sendall(FIRST)
    assert readable(connection.server.socket, SECONDS) == "readable"
    connection.server.socket.setblocking(False)
    source, target = os.pipe()
    with os.fdopen(source, "rb"), os.fdopen(target, "wb"):
        descriptor = connection.server.socket.fileno()
        return attempt(lambda: str(os.splice(descriptor, target, 100, flags=SPLICE_F_NONBLOCK)).encode())


def close_with_unread_bytes(connection: Connection) -> str:
    """What a reader sees when its peer closes without having read."""
    connection.client.socket.sendall(FIRST)
    assert readable(connection.server.socket, SECONDS) == "readable"
    connection.server.socket.close()
    return attempt(lambda: connection.client.socket.recv(100))


def reset(connection: Connection) -> str:
    """What a reader sees of bytes and of the end when its peer sends them and resets."""
    writer, reader = connection.client.socket, connection.server.socket
    writer.sendall(FIRST)
    assert readable(reader, SECONDS) == "readable"
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    # Over a wire the reset comes a moment later than the bytes.
    hang_up = select.poll()
    hang_up.register(reader, 0)
    assert hang_up.poll(SECONDS * 1000)
    return ", ".join(attempt(lambda: reader.recv(100)) for _ in range(3))


def ask_how_much(connection: Connection) -> str:
    """FIONREAD."""
    connection.client.socket.sendall(FIRST)
    assert readable(connection.server.socket, SECONDS) == "readable"
    number = array.array("i", [0])
    fcntl.ioctl(connection.server.socket, termios.FIONREAD, number)
    return str(number[0])


def peek(connection: Connection) -> str:
    """recv() with MSG_PEEK and then without."""
    connection.client.socket.sendall(FIRST)
    reader = connection.server.socket
    return f"{told(reader.recv(100, socket.MSG_PEEK))}, then {told(reader.recv(100))}"


def throw_away(connection: Connection) -> str:
    """recv() with MSG_TRUNC, which on TCP removes bytes without copying them."""
    connection.client.socket.sendall(FIRST)
    buffer = bytearray(b"-" * len(FIRST))
    number = connection.server.socket.recv_into(buffer, flags=socket.MSG_TRUNC)
    return f"{number}: {told(buffer)}"


def ask_how_much_is_left(connection: Connection) -> str:
    """What recvmsg() says of TCP_INQ, the bytes that are left."""
    return ancillary(connection, socket.IPPROTO_TCP, TCP_INQ)


def ask_when(connection: Connection) -> str:
    """Whether recvmsg() says when the bytes came, as SO_TIMESTAMPNS asks for."""
    return ancillary(connection, socket.SOL_SOCKET, SO_TIMESTAMPNS)


def end_one_way(connection: Connection) -> str:
    """Bytes, the end of a stream behind them, and an answer the other way."""
    client, server = connection.client.socket, connection.server.socket
    client.sendall(FIRST)
    client.shutdown(socket.SHUT_WR)
    received = receive_to_end(server)
    server.sendall(SECOND)
    server.shutdown(socket.SHUT_WR)
    return f"{told(received)}, then {told(receive_to_end(client))}"


def give_up_after_a_while(connection: Connection) -> str:
    """recv() with SO_RCVTIMEO when nothing comes."""
    reader = connection.server.socket
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
    begin = time.monotonic()
    answer = attempt(lambda: reader.recv(100))
    return f"{answer} {'after' if time.monotonic() - begin > MOMENT / 2 else 'before'} its time"


CALLS: dict[str, Call] = {
    call.__name__: call
    for call in (
        wait_for_all, wait_for_a_least_number, poll_for_a_least_number, cork, more_to_come, zero_copy,
        urgent_data, splice_in, close_with_unread_bytes, reset, ask_how_much, peek, throw_away,
        ask_how_much_is_left, ask_when, end_one_way, give_up_after_a_while,
    )
}  # fmt: skip


def send_apart(connection: Connection) -> None:
    """Write twice, with time for a reader to see the first alone."""
    writer = connection.client.socket
    time.sleep(MOMENT)
    writer.sendall(FIRST)
    time.sleep(MOMENT)
    writer.sendall(SECOND)


def ancillary(connection: Connection, level: int, option: int) -> str:
    """Switch an option on at the reader; return whether recvmsg() then brings its message along."""
    reader = connection.server.socket
    reader.setsockopt(level, option, 1)
    for _ in range(TRIES):
        connection.client.socket.sendall(FIRST)
        _received, messages, _flags, _address = reader.recvmsg(100, 100)
        if messages:
            return "a control message"
        # Time stamps are switched on for the whole machine, by a work queue.
        time.sleep(CORK_MOMENT)
    return "no control message"


def receive(reader: socket.socket, length: int) -> bytes:
    """Read so many bytes."""
    received = b""
    while len(received) < length:
        received += reader.recv(length - len(received))
    return received


def receive_to_end(reader: socket.socket) -> bytes:
    """Read up to the end of the stream."""
    return b"".join(iter(lambda: reader.recv(100), b""))


def readable(reader: socket.socket, seconds: float) -> str:
    """Return what poll() says of a socket."""
    return "readable" if polled(reader, select.POLLIN, seconds) else "not readable"


def polled(polling: socket.socket, events: int, seconds: float) -> bool:
    """Whether poll() reports one of these events within so many seconds."""
    poll = select.poll()
    poll.register(polling, events)
    return any(seen & events for _, seen in poll.poll(1000 * seconds))


def attempt(call: Callable[[], bytes]) -> str:
    """Return what a call gives, or the name of its error."""
    try:
        return told(call())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def told(received: bytes | bytearray) -> str:
    """Return bytes as a text."""
    return received.decode("ascii") or "the end"
