"""What node_plan tells of ipvs_bpf: each thing that somebody spoils is drift, and told by its own words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.service import IpvsBpf
from meshaccel.node import plan_node
from tests.kernel.directors import Director, director

if TYPE_CHECKING:
    from collections.abc import Iterator

WISH = {"mode": "bpf", "follow": "all", "observe_seconds": 0, "drain_seconds": 0}
SET_TABLE = "nft table meshaccel_ipvs_bpf: marked packets go past conntrack"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Director]:
    with director() as made:
        monkeypatch.setattr(IpvsBpf, "on_this_node", lambda *_: made.node)
        yield made


def drift(own: Director, **wish: object) -> list[str]:
    """Return what node_plan says that ipvs_bpf needs."""
    with own.inside():
        plan = plan_node({"ipvs_bpf": {**WISH, **wish}}, own.node.paths)
    assert plan.roles == (["preflight", "ipvs_bpf"] if plan.drift else [])
    return plan.drift.get("ipvs_bpf", [])


def test_each_thing_that_somebody_spoils_is_told_and_mended(own: Director) -> None:
    own.converge()
    wish = Path(own.node.paths.desired("ipvs_bpf"))
    table = ("table", "inet", "meshaccel_ipvs_bpf")
    mended = {
        ("nft", "delete", *table): [SET_TABLE],
        ("nft", "flush", "ruleset"): [SET_TABLE],
        ("nft", "flush", "chain", *table[1:], "prerouting"): [SET_TABLE],
        ("tc", "filter", "del", "dev", "c0", "egress", "prio", "49000"): ["attach to c0"],
        ("tc", "qdisc", "del", "dev", "br0", "clsact"): ["attach to br0"],
        ("rm", str(wish)): [f"write {wish}"],
        ("ip", "addr", "del", "192.0.2.1/24", "dev", "c0"): ["source addresses of 1 device, removed of 0"],
        ("ip", "link", "del", "tun"): ["source addresses of 0 devices, removed of 1"],
    }
    assert drift(own) == []
    for command, words in mended.items():
        own.call(*command)
        assert drift(own) == words, command
        own.converge()
        assert drift(own) == [], command


def test_pins_that_somebody_removed_are_told(own: Director) -> None:
    own.converge()
    Path(own.node.pins.map("flows")).unlink()
    told = drift(own)
    assert "unload ipvs_bpf" in told
    assert "switch ipvs_bpf on" in told


def test_planning_changes_nothing(own: Director) -> None:
    assert drift(own)[-1].startswith("write ")
    assert own.call("nft", "list", "tables") == ""
    assert not Path(own.node.paths.pins).exists()
    assert not Path(own.node.paths.configuration).exists()
