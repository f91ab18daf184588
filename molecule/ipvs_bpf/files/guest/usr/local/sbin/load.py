"""Loads a service, on short connections and on some that stay, until a file is there; tells what came."""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path

LONG_CONNECTIONS = 20
#: How long an answer may take; a packet that is lost once is sent again within.
SECONDS = 20
#: Between two rounds: the playbook needs the guest's processors, and http.client costs three times as much.
PAUSE_SECONDS = 0.2
REQUEST = b"GET / HTTP/1.1\r\nHost: service\r\nConnection: %s\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Counts:
    """What came of the requests; ``stayed`` connections were opened first and answered last of all."""

    short: int = 0
    long: int = 0
    stayed: int = 0
    failures: list[str] = field(default_factory=list)


def ask(connection: socket.socket, whether_to_stay: bytes) -> None:
    """Make one request; raises OSError unless it is answered as it should be."""
    connection.sendall(REQUEST % whether_to_stay)
    answer = connection.recv(4096)
    if not (answer.startswith(ANSWER) and answer.endswith(b"\n")):
        raise OSError(f"the answer {answer!r}")


def load(address: str, port: int, until: Path, counts: Counts) -> None:
    """Make a request on a connection of its own and one on a connection that stays, again and again."""
    connections = [socket.create_connection((address, port), SECONDS) for _ in range(LONG_CONNECTIONS)]
    for connection in cycle(connections):
        if until.exists():
            break
        ask(connection, b"keep-alive")
        counts.long += 1
        with socket.create_connection((address, port), SECONDS) as short:
            ask(short, b"close")
        counts.short += 1
        time.sleep(PAUSE_SECONDS)
    for connection in connections:
        ask(connection, b"close")
        connection.close()
        counts.stayed += 1


def main() -> None:
    """Take an address, a port and the file's name; write the counts as JSON."""
    counts = Counts()
    try:
        load(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), counts)
    except OSError as error:
        counts.failures.append(repr(error))
    print(json.dumps(asdict(counts)))


main()
