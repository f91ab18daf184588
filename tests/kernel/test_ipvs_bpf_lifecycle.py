"""ipvs_bpf on the running kernel: loaded, attached, switched, swapped, removed; IPVS's table is given."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.explanation import explain, lines
from meshaccel.accelerators.ipvs_bpf.layout import PROGRAMS, ProgramMode
from meshaccel.accelerators.ipvs_bpf.metrics import render
from meshaccel.accelerators.ipvs_bpf.observe import observe_loaded
from meshaccel.accelerators.ipvs_bpf.status import status, status_lines
from meshaccel.errors import ApplyFailed, InvalidInput, NotOurs
from meshaccel.model import Action, Mode
from tests.kernel.directors import DEVICES, OBJECT, WEB, WEB6, Director, director
from tests.support.exposition import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.ipvs_bpf.state import Loaded

#: A filter of tc that matches everything.
SOMEBODY_S = ("u32", "match", "u32", "0", "0", "flowid", "1:1")


@pytest.fixture
def own() -> Iterator[Director]:
    """A director with nothing of ipvs_bpf on it."""
    with director() as made:
        yield made


def loaded(own: Director) -> Loaded:
    """Return what is loaded."""
    found = observe_loaded(own.node.pins)
    assert found is not None
    return found


def filters(own: Director) -> dict[str, int]:
    """Return how many filters of ours are at each device, by tc's own word."""
    counts = {}
    for name in DEVICES:
        shown = [own.call("tc", "filter", "show", "dev", name, way) for way in ("ingress", "egress")]
        counts[name] = sum("handle 0x1 meshaccel_ipvs_" in each for each in shown)
    return counts


def remains(own: Director) -> list[str]:
    """Return what is left in the namespace and in the files."""
    files = Path(own.node.paths.configuration).parent.rglob("*")
    return [
        *[line for line in own.call("tc", "qdisc", "show").splitlines() if "clsact" in line],
        *own.call("nft", "list", "tables").splitlines(),
        *[str(path) for path in files if path.is_file() and path.suffix != ".log"],
        *map(str, Path(own.node.paths.pins).rglob("*")),
    ]


def test_bpf_native_and_absent_and_each_a_second_time_changes_nothing(own: Director) -> None:
    result = own.converge()
    assert result.changed
    assert loaded(own).mode is ProgramMode.ON
    assert set(loaded(own).services) == {WEB.key, WEB6.key}
    assert filters(own) == {"c0": 2, "c1": 2, "br0": 2, "p0": 1, "p1": 2, "tun": 2}
    assert "notrack" in own.call("nft", "list", "ruleset")
    assert not own.converge().changed

    native = own.converge(mode="native")
    assert native.changed
    assert native.after == {"state": "present", "mode": "native"}
    assert set(filters(own).values()) == {0}
    assert own.call("nft", "list", "tables") == ""
    assert not Path(own.node.paths.pins).exists()
    assert not own.converge(mode="native").changed

    own.converge()
    own.converge(state="absent")
    assert remains(own) == []
    assert not own.converge(state="absent").changed


def test_the_diff_says_what_check_mode_plans_and_a_run_does(own: Director) -> None:
    with own.inside():
        wish = own.node.parse({"mode": "bpf", "follow": "all", "observe_seconds": 0})
        planned = own.node.converge(wish, check_mode=True)
    assert remains(own) == []
    done = own.converge()
    assert [action.kind for action in planned.actions] == [action.kind for action in done.actions]
    assert planned.after == done.after == own.converge().before


def test_a_tunnel_has_the_programs_for_packets_without_an_ethernet_header(own: Director) -> None:
    own.converge()
    with own.inside():
        run = own.node.look(own.node.kept_wish())
        found = {state.link.name: state for state in run.observe().devices}
    tunnel, uplink, port = found["tun"], found["c0"], found["p0"]
    assert tunnel.ingress is not None
    assert tunnel.ingress.name == "meshaccel_ipvs_ingress_bare"
    assert uplink.egress is not None
    assert uplink.egress.name == "meshaccel_ipvs_egress"
    assert port.egress is None


def test_devices_and_services_that_come_and_go_are_followed_without_a_switch(own: Director) -> None:
    own.converge()
    own.namespace.configure([["link", "add", "pod", "type", "veth", "peer", "name", "peer"]])
    own.services.append(WEB._replace(address="10.96.0.2"))
    came = own.converge()
    assert {action.kind for action in came.actions} == {
        "ipvs_bpf.write_devices",
        "ipvs_bpf.place",
        "ipvs_bpf.write_services",
    }
    own.namespace.configure([["link", "del", "pod"]])
    own.services.remove(WEB)
    left = own.converge()
    assert "ipvs_bpf.set_mode" not in {action.kind for action in left.actions}
    assert WEB.key not in loaded(own).services
    assert not own.converge().changed


def test_a_new_release_replaces_each_filter_in_one_step(own: Director, tmp_path: Path) -> None:
    own.converge()
    before = loaded(own).digest
    other = tmp_path / "ipvs_bpf.bpf.o"
    # What follows the sections of an object is part of none.
    other.write_bytes(OBJECT.read_bytes() + b"another build")
    with own.inside():
        node = type(own.node)(own.node.paths, str(other), None, own.node.readers, own.node.root)
        result = node.converge(node.kept_wish())
        assert not node.converge(node.kept_wish()).changed
    assert "ipvs_bpf.set_mode" not in {action.kind for action in result.actions}
    assert loaded(own).digest != before
    assert loaded(own).stale_versions == ()
    assert filters(own)["c0"] == 2


def test_another_size_is_taken_over_after_a_drain(own: Director) -> None:
    own.converge()
    kinds = [action.kind.removeprefix("ipvs_bpf.") for action in own.converge(maximum_sessions=5).actions]
    assert kinds.index("drain") < kinds.index("unload") < kinds.index("load") < kinds.index("observe")
    assert loaded(own).maximum_sessions == 5


@pytest.mark.parametrize("spoilt", ["filter", "table", "pin", "program"])
def test_what_somebody_took_away_comes_back(own: Director, spoilt: str) -> None:
    own.converge()
    if spoilt == "filter":
        own.call("tc", "filter", "del", "dev", "c0", "egress", "prio", "49000")
    elif spoilt == "table":
        own.call("nft", "flush", "ruleset")
    elif spoilt == "pin":
        shutil.rmtree(own.node.pins.maps)
    else:
        Path(own.node.pins.program(loaded(own).digest, PROGRAMS[0])).unlink()
    assert own.converge().changed
    assert filters(own)["c0"] == 2
    assert "notrack" in own.call("nft", "list", "ruleset")
    assert loaded(own).mode is ProgramMode.ON
    assert not own.converge().changed


def test_somebody_else_s_filters_stay_and_one_in_our_place_is_named(own: Director) -> None:
    own.call("tc", "qdisc", "add", "dev", "c0", "clsact")
    own.call("tc", "filter", "add", "dev", "c0", "ingress", "prio", "1", *SOMEBODY_S)
    own.converge()
    own.converge(state="absent")
    assert "u32" in own.call("tc", "filter", "show", "dev", "c0", "ingress")
    own.call("tc", "filter", "add", "dev", "c0", "egress", "prio", "49000", *SOMEBODY_S)
    with pytest.raises(ApplyFailed, match="priority 49000") as caught:
        own.converge()
    assert isinstance(caught.value.__cause__, NotOurs)
    assert caught.value.undo_errors == ()
    assert set(filters(own).values()) == {0}


def test_a_device_where_somebody_has_the_place_of_clsact_stays_native_and_is_named(own: Director) -> None:
    own.services.append(
        WEB._replace(address="10.96.0.4", servers=(WEB.servers[0]._replace(address="10.9.0.7"),))
    )
    own.call("tc", "qdisc", "add", "dev", "tun", "ingress")
    own.call("tc", "filter", "add", "dev", "tun", "ingress", "prio", "5", *SOMEBODY_S)
    result = own.converge()
    assert result.notes == (
        "the device tun stays native: the qdisc ingress of somebody else has the place of clsact",
    )
    assert result.native == {"tcp 10.96.0.4:80": "the way to 10.9.0.7 is tun, which is left out"}
    assert filters(own) == {"c0": 2, "c1": 2, "br0": 2, "p0": 1, "p1": 2, "tun": 0}
    assert not own.converge().changed
    with own.inside():
        shown = status_lines(status(own.node))
    assert "  native device tun  the qdisc ingress of somebody else has the place of clsact" in shown
    assert "u32" in own.call("tc", "filter", "show", "dev", "tun", "ingress")
    own.call("tc", "qdisc", "del", "dev", "tun", "ingress")
    own.converge()
    assert filters(own)["tun"] == 2
    assert len(loaded(own).services) == 3
    own.call("tc", "qdisc", "del", "dev", "tun", "clsact")
    own.call("tc", "qdisc", "add", "dev", "tun", "ingress")
    assert "ipvs_bpf.set_mode" not in {action.kind for action in own.converge().actions}
    assert len(loaded(own).services) == 2
    assert not own.converge().changed


def test_where_others_have_the_place_at_every_device_nothing_is_changed(own: Director) -> None:
    for name in DEVICES:
        own.call("tc", "qdisc", "add", "dev", name, "ingress")
    with pytest.raises(NotOurs, match=r"c0: the qdisc ingress .* tun: the qdisc ingress"):
        own.converge()
    assert remains(own) == []


def test_a_failure_at_any_action_leaves_the_node_native(own: Director) -> None:
    with own.inside():
        wish = own.node.parse({"mode": "bpf", "follow": "all", "observe_seconds": 0})
        count = len(own.node.converge(wish, check_mode=True).actions)
        for position in range(count):
            started: list[Action] = []

            def fail(action: Action, position: int = position, started: list[Action] = started) -> None:
                if len(started) == position:
                    raise OSError(5, "injected")
                started.append(action)

            with pytest.raises(ApplyFailed) as caught:
                own.node.converge(wish, before_action=fail)
            assert caught.value.undo_errors == ()
    assert [line for line in remains(own) if "clsact" not in line] == []


def test_an_operator_s_off_is_one_write_and_stays_until_on(own: Director) -> None:
    own.converge()
    with own.inside():
        assert own.node.switch_live(Mode.OFF) == 0
        own.node.hold(Mode.OFF)
    assert loaded(own).mode is ProgramMode.OFF
    assert not own.converge().changed
    with own.inside():
        assert "held by an operator" in status_lines(status(own.node))[0]
        own.node.hold(Mode.ON)
    kinds = [action.kind for action in own.converge().actions]
    assert kinds == [f"ipvs_bpf.{kind}" for kind in ("forget_flows", "observe", "reserve", "set_mode")]
    assert loaded(own).mode is ProgramMode.ON


def test_what_is_not_loaded_cannot_be_switched(own: Director) -> None:
    with own.inside(), pytest.raises(InvalidInput, match=r"wanted ipvs_bpf loaded, .* found it is not"):
        own.node.switch_live(Mode.OFF)


def test_status_metrics_and_explanations(own: Director) -> None:
    with own.inside():
        assert status(own.node) == {"state": "absent"}
    own.services.append(
        WEB._replace(address="10.96.0.3", servers=(WEB.servers[0]._replace(address="192.0.2.1"),))
    )
    own.converge()
    with own.inside():
        found = json.loads(json.dumps(status(own.node)))
        web, native = explain(own.node, "10.96.0.1:80"), explain(own.node, "10.96.0.3:80")
        with pytest.raises(InvalidInput, match="none of its 3 services"):
            explain(own.node, "[fd00::9]:53/udp")
    assert found["mode"] == "on"
    assert found["services"] == {
        str(key): {"masquerade": "remote", "sessions": 0} for key in (WEB.key, WEB6.key)
    }
    assert found["devices"]["c0"]["ports_used"] == {"192.0.2.1": 0, "2001:db8::1": 0}
    assert found["native"] == {"tcp 10.96.0.3:80": "192.0.2.1 is this node itself"}
    assert not found["following"]
    shown = "\n".join(status_lines(found))
    assert re.search(r"native tcp 10\.96\.0\.3:80  192\.0\.2\.1 is this node itself", shown)
    assert "NOT FOLLOWED" in shown
    families = parse(render(found))
    assert families["meshaccel_ipvs_bpf_sessions_total"].kind == "counter"
    assert families["meshaccel_ipvs_bpf_mode"].samples[(("mode", "on"),)] == 1
    assert web["in_bpf"]
    assert web["backends"][0]["device"] == "br0"
    assert web["backends"][0]["source"] == "10.244.0.1 ports 1024-29999"
    assert lines(native)[0] == "tcp 10.96.0.3:80  native: 192.0.2.1 is this node itself"


def test_ports_of_the_kernel_s_own_are_refused_before_anything_is_touched(own: Director) -> None:
    own.namespace.set_sysctl("net.ipv4.ip_local_port_range", "1024 60999")
    with pytest.raises(InvalidInput, match="ip_local_port_range 1024-60999"):
        own.converge()
    assert remains(own) == []
    dedicated = {"*": {"ipv4": "192.0.2.77", "ipv6": "2001:db8::77"}}
    assert own.converge(source_addresses=dedicated).changed
