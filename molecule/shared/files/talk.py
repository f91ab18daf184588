"""Talks over a TCP connection of its own and tells, as JSON, how much of it the kernel's TCP carried."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys

ROUNDS = 200
MESSAGE = bytes(range(256)) * 16


def bytes_by_tcp(port: int) -> int:
    """Return the bytes that both ends have sent by TCP, as ss has it; it leaves out a count of none."""
    command = ["ss", "-tinHO", "state", "established", f"( sport = :{port} or dport = :{port} )"]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return sum(int(count) for count in re.findall(r"\bbytes_sent:(\d+)", shown))


def talk(client: socket.socket, server: socket.socket) -> None:
    """Send messages to and fro; every byte is checked."""
    for _ in range(ROUNDS):
        for writer, reader in ((client, server), (server, client)):
            writer.sendall(MESSAGE)
            received = b""
            while len(received) < len(MESSAGE):
                received += reader.recv(len(MESSAGE) - len(received))
            if received != MESSAGE:
                sys.exit("bytes were changed on the way")


def main() -> None:
    """Connect to itself and talk."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        talk(client, server)
        port = listener.getsockname()[1]
        print(json.dumps({"moved": 2 * ROUNDS * len(MESSAGE), "by_tcp": bytes_by_tcp(port)}))


main()
