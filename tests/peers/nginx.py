"""nginx as a server of files and as a proxy before another nginx, and curl as their client."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from tests.peers.bodies import Received
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.namespaces import NetworkNamespace
from tests.support.processes import ManagedProcess, Placement, run
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meshaccel.accelerators.sockops.service import Sockops

TEMPLATES = Path(__file__).with_name("templates")
ADDRESS = "127.0.0.1"
#: By the value of `sendfile`.
FILE_PORTS = {"on": 8080, "off": 8081}
#: By the value of `proxy_buffering` and `proxy_request_buffering`.
PROXY_PORTS = {"on": 8082, "off": 8083}
SECONDS = 20.0


@dataclass(frozen=True)
class Servers:
    """A backend with files, a proxy before it, and sockops over both and their clients."""

    node: Sockops
    cgroups: tuple[str, ...]
    namespace: NetworkNamespace
    client_cgroup: TestCgroup
    client: SocketMaker
    documents: Path
    scratch: Path

    def curl(self, *words: str) -> str:
        """Run curl as a client; return what it writes. Raises ProcessError on any failure."""
        limits = ("--max-time", str(SECONDS))
        place = Placement(self.namespace, self.client_cgroup)
        return run(["curl", "--silent", "--show-error", "--fail", *limits, *words], place)

    def fetch(self, port: int, names: Sequence[str], *words: str) -> list[Received]:
        """Download files by one curl, which keeps its connection, and tell what arrived of each."""
        transfers = [
            word
            for name in names
            for word in ("--output", str(self.scratch / name), f"http://{ADDRESS}:{port}/{name}")
        ]
        self.curl(*words, *transfers)
        return [self._take(name) for name in names]

    @contextlib.contextmanager
    def receive_memory_limit(self, limit: int) -> Iterator[None]:
        """Let so many bytes wait unread at a socket meanwhile."""
        wish = {"state": "present", "cgroups": self.cgroups}
        self.node.converge(self.node.parse({**wish, "receive_memory_limit": limit}))
        try:
            yield
        finally:
            self.node.converge(self.node.parse(wish))

    def _take(self, name: str) -> Received:
        path = self.scratch / name
        received = told(path)
        path.unlink()
        return received


def told(path: Path) -> Received:
    """Tell the content of a file."""
    with path.open("rb") as content:
        return Received(path.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())


@contextlib.contextmanager
def accelerated_servers(directory: Path, documents: Path) -> Iterator[Servers]:
    """Run both servers in a pod of their own, with sockops over it."""
    with (
        NetworkNamespace("nginx") as namespace,
        TestCgroup("client") as client,
        TestCgroup("proxy") as proxy,
        TestCgroup("backend") as backend,
        _nginx(directory / "backend", Placement(namespace, backend), documents, FILE_PORTS, {}),
        _nginx(directory / "proxy", Placement(namespace, proxy), documents, {}, PROXY_PORTS),
        SocketMaker(namespace, client) as maker,
    ):
        scratch = directory / "scratch"
        scratch.mkdir()
        cgroups = tuple(cgroup.relative_path for cgroup in (client, proxy, backend))
        with accelerated(cgroups) as node:
            yield Servers(node, cgroups, namespace, client, maker, documents, scratch)


@contextlib.contextmanager
def _nginx(
    directory: Path,
    place: Placement,
    documents: Path,
    file_ports: Mapping[str, int],
    proxy_ports: Mapping[str, int],
) -> Iterator[None]:
    directory.mkdir()
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # nothing here is HTML
    ).get_template("nginx.conf.j2")
    configuration = directory / "nginx.conf"
    configuration.write_text(
        template.render(
            directory=directory,
            documents=documents,
            file_ports=file_ports.items(),
            proxy_ports=proxy_ports.items(),
            backend_port=FILE_PORTS["on"],
        ),
        encoding="utf-8",
    )
    command = ["nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr"]
    with ManagedProcess(command, place) as process:
        for port in (*file_ports.values(), *proxy_ports.values()):
            process.wait_for_port(port)
        yield
