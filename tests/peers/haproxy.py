"""haproxy before an nginx: at its defaults, and with splice() in every way it can be asked for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.peers.configuration import write_configuration
from tests.peers.curl import Curl
from tests.peers.nginx import FILE_PORTS, Ports, nginx
from tests.peers.pod import Pod, accelerated_pod
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.documents import Documents

TIMEOUT_SECONDS = 2


@dataclass(frozen=True)
class Front:
    """One way to go through haproxy."""

    mode: str
    options: tuple[str, ...]
    port: int

    @property
    def name(self) -> str:
        """What the configuration and the tests call it."""
        return "-".join((self.mode, *self.options))


FORCED_SPLICE = ("splice-request", "splice-response")
FRONTS = (
    Front("tcp", (), 8090),
    Front("tcp", ("splice-auto",), 8091),
    Front("tcp", FORCED_SPLICE, 8092),
    Front("http", (), 8093),
    Front("http", ("splice-auto",), 8094),
    Front("http", FORCED_SPLICE, 8095),
)


@dataclass(frozen=True)
class Proxied:
    """A backend with files, haproxy before it, and sockops over both and their client."""

    pod: Pod
    curl: Curl
    documents: Documents


@contextlib.contextmanager
def accelerated_haproxy(directory: Path, documents: Documents) -> Iterator[Proxied]:
    """Run haproxy and its backend in a pod of their own."""
    with (
        accelerated_pod("haproxy", "client", "proxy", "backend", denied_executables=[]) as pod,
        nginx(directory / "backend", pod.place("backend"), Ports(files=FILE_PORTS), documents),
        _haproxy(directory, pod.place("proxy")),
    ):
        scratch = directory / "scratch"
        scratch.mkdir()
        yield Proxied(pod, Curl(pod.place("client"), scratch), documents)


@contextlib.contextmanager
def _haproxy(directory: Path, place: Placement) -> Iterator[None]:
    configuration = write_configuration(
        "haproxy.cfg.j2",
        directory,
        address=ADDRESS,
        fronts=FRONTS,
        timeout=TIMEOUT_SECONDS,
        backend_port=FILE_PORTS["on"],
    )
    with ManagedProcess(["haproxy", "-db", "-f", str(configuration)], place) as process:
        for front in FRONTS:
            process.wait_for_port(front.port)
        yield
