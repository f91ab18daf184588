"""Talks over a TCP connection of its own and tells, as JSON, how much of it the kernel's TCP carried."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 200
#: Between rounds, when it talks until a file is there.
PAUSE_SECONDS = 0.01
MESSAGE = bytes(range(256)) * 16


def bytes_by_tcp(port: int) -> int:
    """Return the bytes that both ends have sent by TCP, as ss has it; it leaves out a count of none."""
    command = ["ss", "-tinHO", "state", "established", f"( sport = :{port} or dport = :{port} )"]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return sum(int(count) for count in re.findall(r"\bbytes_sent:(\d+)", shown))


def talk(client: socket.socket, server: socket.socket, until: Path | None) -> int:
    """Send messages to and fro, and return how many bytes; every one is checked."""
    rounds = 0
    while rounds < ROUNDS or (until and not until.exists()):
        rounds += 1
        time.sleep(PAUSE_SECONDS if until else 0)
        for writer, reader in ((client, server), (server, client)):
            writer.sendall(MESSAGE)
            received = b""
            while len(received) < len(MESSAGE):
                received += reader.recv(len(MESSAGE) - len(received))
            if received != MESSAGE:
                sys.exit("bytes were changed on the way")
    return 2 * rounds * len(MESSAGE)


def main() -> None:
    """Connect to itself and talk: some rounds, or until there is a file of the name given."""
    until = Path(sys.argv[1]) if sys.argv[1:] else None
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        moved = talk(client, server, until)
        port = listener.getsockname()[1]
        print(json.dumps({"moved": moved, "by_tcp": bytes_by_tcp(port)}))


main()
