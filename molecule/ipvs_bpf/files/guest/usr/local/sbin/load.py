"""Loads a service, on short connections and on some that stay, until a file is there; tells what failed."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

LONG_CONNECTIONS = 20
#: How long a request may take; a packet that is lost once is sent again within.
SECONDS = 20
#: Between requests, on connections that stay and on short ones: the playbook needs the processors too.
PAUSE_SECONDS, SHORT_PAUSE_SECONDS = 0.5, 0.05


@dataclass
class Counts:
    """What came of the requests on short connections and on those that stay."""

    short: int = 0
    long: int = 0
    failures: list[str] = field(default_factory=list)


Work = Callable[[str, int, Path, Counts], None]


def ask(connection: http.client.HTTPConnection) -> None:
    """Make one request; raises OSError or HTTPException unless it is answered as it should be."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    if answer.read().count(b" ") != 1 or answer.status != http.HTTPStatus.OK:
        raise OSError(f"an answer with status {answer.status}")


def keep(address: str, port: int, until: Path, counts: Counts) -> None:
    """Make requests on one connection, which must stay open."""
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    connection.connect()
    # Otherwise a broken one would be replaced in silence.
    connection.auto_open = 0
    while not until.exists():
        ask(connection)
        counts.long += 1
        time.sleep(PAUSE_SECONDS)


def repeat(address: str, port: int, until: Path, counts: Counts) -> None:
    """Make requests on a connection each."""
    while not until.exists():
        connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
        ask(connection)
        connection.close()
        counts.short += 1
        time.sleep(SHORT_PAUSE_SECONDS)


def guarded(work: Work, address: str, port: int, until: Path, counts: Counts) -> None:
    """Do work until the file is there, or it fails, which is noted."""
    try:
        work(address, port, until, counts)
    except (OSError, http.client.HTTPException) as error:
        counts.failures.append(f"{work.__name__}: {error!r}")


def main() -> None:
    """Take an address, a port and the file's name; write the counts as JSON."""
    address, port, until = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    counts = Counts()
    works = [repeat, *[keep] * LONG_CONNECTIONS]
    threads = [threading.Thread(target=guarded, args=(work, address, port, until, counts)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(asdict(counts)))


main()
