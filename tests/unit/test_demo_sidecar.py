"""The mesh's programs get configuration that says what the mesh is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.demo.sidecar import BODY_BYTES, PORTS, SIDECAR_GROUP, render, render_file, sidecar_command


def envoy(template: str) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(render(template, Path("/nowhere")))
    return configuration


@pytest.mark.parametrize(
    ("template", "port", "clusters"),
    [
        ("envoy_outbound.yaml.j2", PORTS.outbound_port, {"ORIGINAL_DST"}),
        ("envoy_inbound.yaml.j2", PORTS.inbound_port, {"STATIC"}),
    ],
)
def test_sidecar_takes_http_and_tcp_at_its_port(template: str, port: int, clusters: set[str]) -> None:
    resources = envoy(template)["static_resources"]
    (listener,) = resources["listeners"]
    assert listener["address"]["socket_address"]["port_value"] == port
    assert listener["listener_filters"][0]["name"] == "envoy.filters.listener.original_dst"
    assert [chain["filter_chain_match"]["destination_port"] for chain in listener["filter_chains"]] == [
        PORTS.http_port,
        PORTS.tcp_port,
    ]
    assert {cluster["type"] for cluster in resources["clusters"]} == clusters


@pytest.mark.parametrize("template", ["envoy_outbound.yaml.j2", "envoy_inbound.yaml.j2"])
def test_routes_lead_to_clusters_that_exist(template: str) -> None:
    resources = envoy(template)["static_resources"]
    http, tcp = (chain["filters"][0]["typed_config"] for chain in resources["listeners"][0]["filter_chains"])
    (host,) = http["route_config"]["virtual_hosts"]
    wanted = {host["routes"][0]["route"]["cluster"], tcp["cluster"]}
    assert wanted == {cluster["name"] for cluster in resources["clusters"]}


def test_admin_page_is_on_loopback_only() -> None:
    for template in ("envoy_outbound.yaml.j2", "envoy_inbound.yaml.j2"):
        assert envoy(template)["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_redirection_leaves_the_sidecar_and_the_excluded_ports_alone() -> None:
    rules = render("redirect.nft.j2", Path("/nowhere"))
    outbound = rules.partition("chain outbound")[2]
    alone = outbound.index(f"meta skgid {SIDECAR_GROUP} return")
    assert alone < outbound.index(f"redirect to :{PORTS.outbound_port}")
    assert rules.count(f"tcp dport {{ {PORTS.direct_http_port}, {PORTS.redis_port} }} return") == 2


def test_nginx_answers_with_a_kilobyte(tmp_path: Path) -> None:
    path = render_file("nginx.conf.j2", tmp_path)
    assert path == tmp_path / "nginx.conf"
    body = path.read_text().partition('return 200 "')[2].partition('"')[0]
    assert len(body) == BODY_BYTES == 1024


def test_sidecar_dies_with_the_demonstration_despite_its_group() -> None:
    command = sidecar_command(Path("envoy.yaml"))
    assert command[: command.index("--")] == [
        "setpriv", "--pdeathsig", "KILL", "--regid", str(SIDECAR_GROUP), "--clear-groups",
    ]  # fmt: skip
