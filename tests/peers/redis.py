"""Redis servers, and redis-cli and redis-benchmark as their clients."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.observation import wait_until
from tests.peers.addresses import ADDRESS
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from tests.peers.pod import Pod

MASTER_PORT = 6379
REPLICA_PORT = 6380
SECONDS = 20.0


@dataclass(frozen=True)
class Redis:
    """A server, and the place of its clients."""

    port: int
    clients: Placement

    def ask(self, *words: str) -> str:
        """Run one command by redis-cli and return the answer as it writes it, without the last newline."""
        return self._client(["redis-cli"], [*words]).removesuffix("\n")

    def ask_in_turn(self, commands: Sequence[str]) -> str:
        """Run lines of commands by one redis-cli, over one connection; return all it writes."""
        return self._client(["redis-cli"], [], "\n".join(commands) + "\n")

    def pipe(self, commands: Sequence[Sequence[str]]) -> str:
        """Send commands without waiting for answers; return redis-cli's count of errors and replies."""
        return self._client(["redis-cli"], ["--pipe"], "".join(map(encoded, commands)))

    def load(self, *words: str) -> None:
        """Run redis-benchmark; raises ProcessError when the server answers with an error."""
        self._client(["redis-benchmark"], ["-q", *words])

    def in_background(self, program: str, *words: str) -> ManagedProcess:
        """Return a client of this server to run meanwhile."""
        return ManagedProcess([program, *self._server_words(), *words], self.clients)

    def information(self, section: str) -> dict[str, str]:
        """Return a section of INFO."""
        lines = self.ask("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def digest(self) -> str:
        """Return the checksum of all keys and values."""
        return self.ask("DEBUG", "DIGEST")

    def _client(self, program: list[str], words: list[str], standard_input: str | None = None) -> str:
        command = [*program, *self._server_words(), *words]
        return run(command, self.clients, standard_input=standard_input, timeout=SECONDS)

    def _server_words(self) -> list[str]:
        return ["-h", ADDRESS, "-p", str(self.port)]


def encoded(command: Sequence[str]) -> str:
    """Return a command of ASCII words as the protocol has it (RESP, an array of bulk strings)."""
    return f"*{len(command)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in command)


def answers_to(connection: socket.socket, commands: Sequence[Sequence[str]]) -> bytes:
    """Send commands without waiting for answers, the last of them QUIT; return all answers as they came."""
    connection.settimeout(SECONDS)
    with connection, ThreadPoolExecutor(1) as sender, connection.makefile("rb") as answers:
        sent = sender.submit(connection.sendall, "".join(map(encoded, commands)).encode("ascii"))
        received = answers.read()
        sent.result(SECONDS)
    return received


@dataclass(frozen=True)
class Servers:
    """Where Redis runs, with sockops over all of it; servers start and end with each scenario."""

    pod: Pod
    directory: Path

    @contextlib.contextmanager
    def master(self) -> Iterator[Redis]:
        """Run an empty server meanwhile."""
        with self._server(MASTER_PORT, self.pod.place("master"), []) as redis:
            yield redis

    @contextlib.contextmanager
    def replica(self) -> Iterator[Redis]:
        """Run a replica of the master meanwhile."""
        with self._server(
            REPLICA_PORT, self.pod.place("replica"), ["--replicaof", ADDRESS, str(MASTER_PORT)]
        ) as redis:
            yield redis

    @contextlib.contextmanager
    def _server(self, port: int, place: Placement, words: list[str]) -> Iterator[Redis]:
        command = [
            "redis-server", "--port", str(port), "--bind", ADDRESS, "--dir", str(self.directory),
            "--save", "", "--appendonly", "no", "--dbfilename", f"{port}.rdb",
            "--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0", *words,
        ]  # fmt: skip
        with ManagedProcess(command, place) as process:
            process.wait_for_port(port)
            yield Redis(port, self.pod.place("client"))


def wait_for_replica(replica: Redis) -> None:
    """Wait until the first synchronisation is over and changes come one by one."""
    wait_until(
        lambda: replica.information("replication")["master_link_status"] == "up",
        "the replica's link",
        SECONDS,
    )
