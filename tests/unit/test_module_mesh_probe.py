"""The module mesh_probe: its parameters, and what it measures and says without root."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.modules import import_part, load_module, run_module

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "mesh_probe"
QUICK: dict[str, Any] = {"messages": 20, "pairs": 1, "duration": 10}


@contextlib.contextmanager
def service(answer: bytes) -> Iterator[int]:
    """Serve one connection after the other with the same answer to anything; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            # Shutting down the listener ends accept.
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        while connection.recv(65_536):
                            connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("check_mode", [False, True])
def test_measures_an_endpoint(check_mode: bool) -> None:
    with service(b"+PONG\r\n") as port:
        result = run_module(
            MODULE,
            check_mode=check_mode,
            address="127.0.0.1",
            port=port,
            request="PING\r\n",
            response="+PONG\r\n",
            **QUICK,
        )

    assert result["changed"] is False
    assert result["redirected"] is False
    assert result["counters"] is None
    assert "ratio" not in result
    assert [run["arm"] for run in result["runs"]] == ["endpoint", "endpoint"]
    figures = result["arms"]["endpoint"]
    assert figures["redirected_share"] == 0
    assert 0 < figures["latency_p50"] <= figures["latency_p99"]
    # 13 bytes both ways for each message.
    assert figures["bytes_per_second"] == pytest.approx(13 * figures["qps"])


def test_says_what_a_wrong_response_was() -> None:
    with service(b"-ERR unknown\r\n") as port:
        result = run_module(
            MODULE, address="127.0.0.1", port=port, request="PING\r\n", response="+PONG\r\n", **QUICK
        )

    assert result["failed"] is True
    assert result["wanted"] == f"the expected response from 127.0.0.1 port {port}"
    assert "-ERR unknown" in result["found"]
    assert "+PONG" in result["found"]


def test_says_that_an_endpoint_refuses() -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port meanwhile.
        taken.bind(("127.0.0.1", 0))
        result = run_module(MODULE, address="127.0.0.1", port=taken.getsockname()[1], **QUICK)

    assert result["failed"] is True
    assert result["found"] == "Connection refused"
    assert "start the service" in result["remedy"]


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({}, "address, cgroup"),
        ({"address": "127.0.0.1"}, "port"),
        ({"port": 80, "cgroup": "web.slice"}, "address"),
        ({"cgroup": "web.slice", "response": "x"}, "request"),
        ({"address": "127.0.0.1", "port": 0}, "port from 1 to 65535"),
        ({"address": "127.0.0.1", "port": 65_536}, "port from 1 to 65535"),
        ({"cgroup": "web.slice", "pairs": 0}, "pairs from 1"),
        ({"cgroup": "web.slice", "messages": 0}, "messages from 1"),
        ({"cgroup": "web.slice", "duration": 601}, "duration from 0.1 to 600"),
        ({"cgroup": "web.slice", "request": ""}, "at least one byte as request"),
        ({"cgroup": "web.slice", "messsages": 5}, "messsages"),
    ],
)
def test_refuses_parameters_that_mean_nothing(parameters: dict[str, Any], complaint: str) -> None:
    result = run_module(MODULE, **parameters)

    assert result["failed"] is True
    assert complaint in result["msg"]


def test_counters_are_those_of_the_installation_for_the_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    module, paths = load_module(MODULE), import_part("paths")

    class Node:
        hierarchy = import_part("system.cgroups").Hierarchy("/cgroup2")

        @classmethod
        def on_this_node(cls, places: object) -> Node:
            assert places == paths.NodePaths()
            return cls()

        def status(self) -> dict[str, Any]:
            return {"cgroups": {"web.slice": {"counters": {"connections_paired": 7}}}}

    monkeypatch.setattr(module, "Sockops", Node)

    assert module.counters_of(None) is None
    assert module.counters_of("web.slice/nginx.service")() == {"connections_paired": 7}


def test_documentation_has_the_parameters_of_the_code() -> None:
    module = load_module(MODULE)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]

    assert {name: (option["type"], option.get("default")) for name, option in documented.items()} == {
        name: (option["type"], option.get("default")) for name, option in module.ARGUMENTS.items()
    }
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)
