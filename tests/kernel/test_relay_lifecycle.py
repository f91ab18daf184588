"""Relays under the project's rules: switched off at once, changed, updated, restored, taken away."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import metrics
from meshaccel.accelerators.sockops.observe import Places
from meshaccel.errors import ApplyFailed, MeshaccelError
from meshaccel.model import Action, Mode
from tests.kernel import compiled
from tests.kernel.installations import absent, installation, present
from tests.kernel.observation import assert_accelerates, wait_until
from tests.kernel.relays import RELAY, Servers, relay_counters, relay_status
from tests.support.cgroups import TestCgroup
from tests.support.exposition import parse

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups

OTHER_RELAY = {"from": "127.0.0.1:7001", "to": "[::1]:7002"}


def relay(node: Sockops, cgroups: Cgroups, relays: list[dict[str, str]], **settings: object) -> list[str]:
    """Converge to these relays over the servers' cgroup; return what was done."""
    result = present(node, [cgroups.server.relative_path], relays=relays, **settings)
    return [action.kind for action in result.actions]


# ---- modes ----


def test_off_gives_new_bytes_to_the_servers_and_on_joins_again(relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as pair:
        for _ in range(3):
            pair.assert_joined()
            relayed.switch(Mode.OFF)
            pair.assert_apart()
            relayed.switch(Mode.ON)


def test_one_cgroup_s_off_is_the_relay_s_too(own_cgroups: Cgroups, relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        relayed.switch(Mode.OFF, own_cgroups.server.relative_path)
        pair.assert_apart()


def test_drain_keeps_the_joined_and_joins_no_more(relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as joined:
        relayed.switch(Mode.DRAIN)
        joined.assert_joined()
        with ends.pair(seed=2) as later:
            later.assert_apart()
        assert relay_counters(relayed)["skipped_mode"] == 2


def test_accepted_while_off_stays_its_server_s(relayed: Sockops, ends: Servers) -> None:
    relayed.switch(Mode.OFF)
    with ends.pair() as pair:
        relayed.switch(Mode.ON)
        pair.assert_apart()


# ---- converging ----


def test_a_second_run_has_nothing_to_do(own_cgroups: Cgroups, relayed: Sockops) -> None:
    assert relay(relayed, own_cgroups, [RELAY]) == []


def test_check_mode_shows_what_a_run_would_do_and_does_nothing(own_cgroups: Cgroups) -> None:
    with installation() as node:
        relay(node, own_cgroups, [])
        wish = node.parse({"cgroups": [own_cgroups.server.relative_path], "relays": [RELAY]})
        promised = node.converge(wish, check_mode=True)
        assert node.status()["relays"] == []
        assert promised.after["relays"] == [RELAY]
        done = node.converge(wish)
        assert [action.summary for action in done.actions] == [action.summary for action in promised.actions]
        assert (done.before["relays"], done.after["relays"]) == ([], [RELAY])
        assert node.status()["relays"][0]["from"] == RELAY["from"]


def test_a_relay_that_stays_keeps_its_connections(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers
) -> None:
    with ends.pair() as pair:
        for relays in ([RELAY, OTHER_RELAY], [OTHER_RELAY, RELAY], [RELAY]):
            relay(relayed, own_cgroups, relays)
            pair.assert_joined()


@pytest.mark.parametrize("others", [[], [OTHER_RELAY]])
def test_a_relay_that_goes_gives_its_connections_back(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers, others: list[dict[str, str]]
) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        relay(relayed, own_cgroups, others)
        pair.assert_apart()
        relay(relayed, own_cgroups, [RELAY])
        pair.assert_apart()
        with ends.pair(seed=2) as later:
            later.assert_joined()


def test_a_relay_turned_round_is_another(own_cgroups: Cgroups, relayed: Sockops) -> None:
    turned = {"from": RELAY["to"], "to": RELAY["from"]}
    assert relay(relayed, own_cgroups, [turned]) == ["sockops.relays_write", "file.write"]
    assert relay_status(relayed)["from"] == RELAY["to"]


def test_a_cgroup_that_is_no_longer_named_gives_its_connections_back(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers
) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        present(relayed, [own_cgroups.client.relative_path], relays=[RELAY])
        pair.assert_apart()
        # Another cgroup gets what was its policy's place, and is on.
        with TestCgroup("other") as other:
            present(relayed, [own_cgroups.client.relative_path, other.relative_path], relays=[RELAY])
            pair.assert_apart()
            present(relayed, [own_cgroups.client.relative_path], relays=[RELAY])


def test_a_larger_table_is_a_new_one(own_cgroups: Cgroups, relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        relay(relayed, own_cgroups, [RELAY], maximum_connections=100)
        pair.assert_apart()
        with ends.pair(seed=2) as later:
            later.assert_joined()


def test_absent_gives_connections_back_and_leaves_no_pin(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers
) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        absent(relayed)
        assert not Path(relayed.paths.pins).exists()
        pair.assert_apart()
        relay(relayed, own_cgroups, [RELAY])
        pair.assert_apart()


def test_restore_brings_relays_back(own_cgroups: Cgroups, relayed: Sockops, ends: Servers) -> None:
    shutil.rmtree(Places.of(relayed.paths).root)
    relayed.restore()
    with ends.pair() as pair:
        pair.assert_joined()
    assert relay(relayed, own_cgroups, [RELAY]) == []


@pytest.mark.parametrize(
    "lost",
    ["relays/maps/relay_ends", "relays/maps/relay_settings", "relays/links", "relays/programs", "relays"],
)
def test_what_was_removed_by_hand_is_mended(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers, lost: str
) -> None:
    path = Path(Places.of(relayed.paths).root, lost)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert relay(relayed, own_cgroups, [RELAY]) != []
    with ends.pair() as pair:
        pair.assert_joined()
    assert relay(relayed, own_cgroups, [RELAY]) == []


def test_another_version_reaches_joined_connections(
    own_cgroups: Cgroups, relayed: Sockops, ends: Servers
) -> None:
    other = compiled.variant(compiled.MARKED_RELAYS)
    with ends.pair() as pair:
        pair.assert_joined()
        updated = replace(relayed, object_path=str(other))
        relay(updated, own_cgroups, [RELAY])
        pair.assert_joined()
        assert relay_counters(updated)["joined_bytes"]["from"] > compiled.MARKED_BYTES
        assert relay(updated, own_cgroups, [RELAY]) == []


# ---- failures ----


class Refused(MeshaccelError):
    """What a test makes an action fail with."""


def refuse(kind: str) -> Refused:
    """Build the error for an action that is made to fail."""
    return Refused(wanted=kind, found="the test", remedy="none")


KINDS = ["sockops.relays_load", "sockops.relays_attach", "sockops.relays_write", "file.write"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_start_is_undone(own_cgroups: Cgroups, kind: str) -> None:
    def before(action: Action) -> None:
        if action.kind == kind:
            raise refuse(kind)

    with installation() as node:
        relay(node, own_cgroups, [])
        wish = node.parse({"cgroups": [own_cgroups.server.relative_path], "relays": [RELAY]})
        with pytest.raises(ApplyFailed):
            node.converge(wish, before_action=before)
        assert not Path(Places.of(node.paths).root, "relays").exists()
        assert node.status()["relays"] == []
        node.converge(wish)
        assert relay_status(node)["to"] == RELAY["to"]


def test_a_failed_removal_is_undone(own_cgroups: Cgroups, relayed: Sockops, ends: Servers) -> None:
    def before(action: Action) -> None:
        if action.kind == "file.remove":
            raise refuse(action.kind)

    with pytest.raises(ApplyFailed):
        relayed.converge(relayed.parse({"state": "absent"}), before_action=before)
    with ends.pair() as pair:
        pair.assert_joined()
    assert relay(relayed, own_cgroups, [RELAY]) == []


# ---- beside the accelerator ----


def test_the_servers_other_connections_are_accelerated(own_cgroups: Cgroups) -> None:
    with installation() as node:
        present(node, own_cgroups.paths, relays=[RELAY])
        assert_accelerates(node, own_cgroups)


def test_metrics_have_every_relay(relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        wait_until(lambda: relay_status(relayed)["joined"] == 1, "joined")
        families = parse(metrics.render(relayed.status()))
    labels = (("from", RELAY["from"]), ("to", RELAY["to"]))
    assert families["meshaccel_sockops_relay_joined"].samples == {labels: 1.0}
    moved = families["meshaccel_sockops_relay_joined_bytes_total"].samples
    assert moved == {
        (labels[0], ("side", "from"), labels[1]): float(pair.clients.client.outgoing.position),
        (labels[0], ("side", "to"), labels[1]): float(pair.clients.server.outgoing.position),
    }
