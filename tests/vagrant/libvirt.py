"""libvirt's daemon on a machine where no init system runs it: started for a command, and ended after it."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import ManagedProcess, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOCKET = Path("/run/libvirt/libvirt-sock")
#: Keeps what guests say on their consoles; the other one starts no guest without it.
LOG_SOCKET = Path("/run/libvirt/virtlogd-sock")
LOG_DAEMON = ("virtlogd",)
#: The daemon waits for processes that are not its children to end, for minutes if nobody collects them: tini
#: does, where the machine's first process does not.
DAEMON = ("tini", "-s", "-p", "SIGTERM", "--", "libvirtd")
VIRSH = ("virsh", "--connect", "qemu:///system")
START_SECONDS = 60.0
#: How a kind of object is listed and ended.
ENDED = (("list", "destroy"), ("net-list", "net-destroy"))


@contextlib.contextmanager
def provided() -> Iterator[None]:
    """Have libvirt's daemon answer.

    One that is started here ends with the context, and before it the guests and networks that run then.
    Raises ProcessError with its last words when it does not start.
    """
    if answers(SOCKET):
        yield
        return
    with running(LOG_DAEMON, LOG_SOCKET), running(DAEMON, SOCKET):
        try:
            yield
        finally:
            end_all()


@contextlib.contextmanager
def running(command: Sequence[str], path: Path) -> Iterator[None]:
    """Run a daemon, unless one answers at the socket already."""
    if answers(path):
        yield
        return
    with ManagedProcess(command) as daemon:
        daemon.wait_until(lambda: answers(path), str(path), START_SECONDS)
        yield


def answers(path: Path) -> bool:
    """Whether something accepts connections at a socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def end_all() -> None:
    """End every guest and network that runs; none is undefined. Raises ProcessError."""
    for listing, ending in ENDED:
        for name in run([*VIRSH, listing, "--name"]).split():
            run([*VIRSH, ending, name])
