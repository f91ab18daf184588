"""nginx as a server of files and as a proxy before another nginx."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.addresses import ADDRESS
from tests.peers.certificate import Certificate
from tests.peers.configuration import write_configuration
from tests.peers.curl import Curl
from tests.peers.pod import Pod, accelerated_pod
from tests.support.processes import ManagedProcess, Placement
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.peers.documents import Documents

#: By the value of `sendfile`.
FILE_PORTS = {"on": 8080, "off": 8081}
#: By the value of `proxy_buffering` and `proxy_request_buffering`.
PROXY_PORTS = {"on": 8082, "off": 8083}
#: HTTP/1.1 or HTTP/2, as the client asks in its TLS handshake.
TLS_PORT = 8084


@dataclass(frozen=True)
class Servers:
    """A backend with files, a proxy before it, and sockops over both and their clients."""

    pod: Pod
    client: SocketMaker
    curl: Curl
    documents: Documents


@dataclass(frozen=True)
class Ports:
    """What one nginx listens at, each port for one way to serve."""

    files: Mapping[str, int] = field(default_factory=dict)
    proxies: Mapping[str, int] = field(default_factory=dict)
    tls: tuple[int, ...] = ()

    def all(self) -> tuple[int, ...]:
        """Return every port."""
        return (*self.files.values(), *self.proxies.values(), *self.tls)


BACKEND_PORTS = Ports(files=FILE_PORTS, tls=(TLS_PORT,))


@contextlib.contextmanager
def accelerated_servers(directory: Path, documents: Documents) -> Iterator[Servers]:
    """Run both servers in a pod of their own, with sockops over it."""
    certificate = Certificate.make(directory)
    with (
        accelerated_pod("nginx", "client", "proxy", "backend") as pod,
        nginx(directory / "backend", pod.place("backend"), BACKEND_PORTS, documents, certificate),
        nginx(directory / "proxy", pod.place("proxy"), Ports(proxies=PROXY_PORTS)),
        SocketMaker(pod.namespace, pod.cgroups["client"]) as maker,
    ):
        scratch = directory / "scratch"
        scratch.mkdir()
        curl = Curl(pod.place("client"), scratch, certificate.certificate)
        yield Servers(pod, maker, curl, documents)


@contextlib.contextmanager
def nginx(
    directory: Path,
    place: Placement,
    ports: Ports,
    documents: Documents | None = None,
    certificate: Certificate | None = None,
) -> Iterator[None]:
    """Run an nginx with its files below `directory`, which it makes, meanwhile.

    What serves files needs `documents`, and TLS a certificate.
    """
    directory.mkdir()
    configuration = write_configuration(
        "nginx.conf.j2",
        directory,
        address=ADDRESS,
        documents=documents,
        certificate=certificate,
        ports=ports,
        backend_port=FILE_PORTS["on"],
    )
    command = ["nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr"]
    with ManagedProcess(command, place) as process:
        for port in ports.all():
            process.wait_for_port(port)
        yield
