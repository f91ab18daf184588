"""A PostgreSQL cluster of a test's own, and its clients psql and pgbench, over TCP."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.support.directories import temporary_directory
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.peers.pod import Pod

PORT = 5432
SUPERUSER = "postgres"
DATABASE = "postgres"
SECONDS = 60.0
SYSTEM_USER = pwd.getpwnam("nobody")
"""PostgreSQL refuses to run as root."""
SETTINGS = {
    "listen_addresses": ADDRESS,
    "port": str(PORT),
    "unix_socket_directories": "",
    # What the disk does is not tested.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, of the newest version that is installed.

    Raises FileNotFoundError when there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise FileNotFoundError(f"no {name} below /usr/lib/postgresql: install postgresql")
    return str(found[-1])


@dataclass(frozen=True)
class Database:
    """A running server, and the place of its clients."""

    clients: Placement

    def query(self, script: str) -> str:
        """Run lines of SQL and of psql's own commands over one connection; return the bare answers.

        Raises ProcessError at the first error.
        """
        return run(self._command("psql", *PSQL_WORDS), self.clients, standard_input=script, timeout=SECONDS)

    def in_background(self, *statements: str) -> ManagedProcess:
        """Return a psql to run meanwhile, whose statements are transactions of their own."""
        words = [f"--command={statement}" for statement in statements]
        return ManagedProcess(self._command("psql", *PSQL_WORDS, *words), self.clients)

    def bench(self, *words: str) -> str:
        """Run pgbench; return its report. Raises ProcessError when a client was aborted."""
        return run(self._command("pgbench", *words), self.clients, timeout=SECONDS)

    def _command(self, name: str, *words: str) -> list[str]:
        server = (f"--host={ADDRESS}", f"--port={PORT}", f"--username={SUPERUSER}")
        return [program(name), *server, *words, DATABASE]


PSQL_WORDS = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")


@contextlib.contextmanager
def database(pod: Pod) -> Iterator[Database]:
    """Make a cluster and run its server, with the role `server`, for clients of the role `client`."""
    place = pod.place("server", user_id=SYSTEM_USER.pw_uid)
    with temporary_directory("postgresql") as directory:
        os.chown(directory, SYSTEM_USER.pw_uid, SYSTEM_USER.pw_gid)
        data = f"{directory}/data"
        run(initialization(data), place, timeout=SECONDS)
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with ManagedProcess([program("postgres"), "-D", data, *settings], place) as server:
            server.wait_for_port(PORT)
            yield Database(pod.place("client"))


def initialization(data: str) -> Sequence[str]:
    """Return the command that makes a cluster whose clients need no password."""
    return [
        program("initdb"), f"--pgdata={data}", f"--username={SUPERUSER}", "--auth=trust",
        "--encoding=UTF8", "--locale=C", "--no-sync",
    ]  # fmt: skip
