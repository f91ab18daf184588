"""What else is in ipvs_bpf's plan: kernel settings, TencentOS's own switch, the daemon; and their order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf import kernel_settings, owned_files, tencent
from meshaccel.accelerators.ipvs_bpf.follow_unit import UNIT_NAME, unit_text
from meshaccel.accelerators.ipvs_bpf.plan import make_plan
from meshaccel.accelerators.ipvs_bpf.settings_before import settings_before
from meshaccel.errors import ApplyFailed, Unsupported
from meshaccel.unit_actions import Unit
from tests.unit.ipvs_bpf_scenarios import DOCUMENT, PATHS, around, resolved, wish
from tests.unit.simulated_director import SimulatedDirector
from tests.unit.test_ipvs_bpf_plan import ABSENT, BPF, FIRST, NATIVE, converge, director

if TYPE_CHECKING:
    from meshaccel.accelerators.ipvs_bpf.desired import Desired
    from meshaccel.accelerators.ipvs_bpf.state import Observed
    from meshaccel.model import Json, Plan

CONNTRACK = "net.ipv4.vs.conntrack"
RELOADED = wish(tencent_reload=True)
NO_UNIT = Unit(UNIT_NAME, f"{PATHS.units}/{UNIT_NAME}", None, enabled=False)
RUNNING = replace(NO_UNIT, text=unit_text(PATHS), enabled=True)


def seen(node: SimulatedDirector, **changes: Json) -> Observed:
    """Return what is observed of a node that has ip_vs, with these changes."""
    there = kernel_settings.Observed({CONNTRACK: "0"})
    return replace(node.observe(), **{"ipvs_loaded": True, "settings": there, **changes})


def plan(desired: Desired, observed: Observed) -> Plan:
    return make_plan(desired, resolved(desired, observed.surroundings), observed, PATHS)


def values(actions: Plan) -> dict[str, str]:
    """Return the settings that a plan writes."""
    return {
        action.arguments["name"]: action.arguments["value"]
        for action in actions
        if action.kind == kernel_settings.SET
    }


def kept(actions: Plan) -> dict[str, str]:
    """Return what a plan keeps of the settings from before."""
    (text,) = [
        action.arguments["text"]
        for action in actions
        if action.kind == "file.write" and action.arguments["path"] == settings_before(PATHS)
    ]
    found: dict[str, str] = json.loads(text)
    return found


def place(actions: Plan, kind: str) -> int:
    """Return where the first action of a kind is."""
    return [action.kind for action in actions].index(kind)


# ---- kernel settings ----


@pytest.mark.parametrize("desired", [BPF, NATIVE], ids=["bpf", "native"])
def test_settings_are_set_with_what_was_before_kept_first(desired: Desired) -> None:
    actions = plan(desired, seen(SimulatedDirector(around(), object_file=FIRST)))
    assert values(actions) == {CONNTRACK: "1"}
    assert kept(actions) == {CONNTRACK: "0"}
    assert place(actions, "file.write") < place(actions, kernel_settings.SET)


def test_packets_that_are_not_tracked_come_after_the_settings_that_let_them_pass() -> None:
    actions = plan(BPF, seen(SimulatedDirector(around(), object_file=FIRST)))
    assert place(actions, kernel_settings.SET) < place(actions, "ipvs_bpf.place")


def test_without_ip_vs_native_sets_nothing() -> None:
    actions = plan(NATIVE, seen(SimulatedDirector(around(), object_file=FIRST), ipvs_loaded=False))
    assert [action.arguments["path"] for action in actions] == [DOCUMENT]


def test_absent_gives_back_what_was_before_and_forgets_it() -> None:
    ours = kernel_settings.Observed({CONNTRACK: "1"}, kernel_settings.text_of({CONNTRACK: "1"}))
    before = json.dumps({CONNTRACK: "0"}).encode()
    actions = plan(ABSENT, seen(director(BPF), settings=ours, settings_before=before))
    assert values(actions) == {CONNTRACK: "0"}
    removed = [action.arguments["path"] for action in actions if action.kind == "file.remove"]
    assert settings_before(PATHS) in removed
    assert place(actions, "ipvs_bpf.set_mode") < place(actions, kernel_settings.SET)


# ---- TencentOS ----


def test_on_tencentos_its_own_mode_is_loaded_and_nothing_of_ours() -> None:
    node = SimulatedDirector(around(), object_file=FIRST)
    actions = plan(RELOADED, seen(node, tencent=tencent.Observed(mode=0, holders={"ip_vs_rr": 0})))
    assert [action.kind for action in actions] == [
        tencent.CHECK_EMPTY,
        *[tencent.UNLOAD] * 2,
        owned_files.KIND,
        tencent.LOAD,
        tencent.CHECK_MODE,
        tencent.LOAD,
        "file.write",
        *[owned_files.KIND] * 2,
        "file.write",
    ]
    assert kept(actions) == {CONNTRACK: "0"}
    # A new module has defaults, so its settings are set after it; its mode needs no conntrack.
    assert f"-{CONNTRACK} = 0" in actions[-3].arguments["text"]
    assert json.loads(actions[-1].arguments["text"])["mode"] == "bpf"


def test_on_tencentos_conntrack_goes_off_whatever_it_was() -> None:
    loaded = tencent.Observed(mode=1, options=tencent.options_text())
    there = kernel_settings.Observed({CONNTRACK: "1"})
    actions = plan(BPF, seen(SimulatedDirector(around(), object_file=FIRST), tencent=loaded, settings=there))
    assert values(actions) == {CONNTRACK: "0"}
    assert tencent.LOAD not in [action.kind for action in actions]


def test_on_tencentos_an_online_change_is_refused() -> None:
    with pytest.raises(Unsupported, match="which only loading it anew changes"):
        plan(BPF, seen(SimulatedDirector(around(), object_file=FIRST), tencent=tencent.Observed(mode=0)))


def leaving(desired: Desired, options: str | None) -> list[str]:
    observed = tencent.Observed(mode=1, options=options)
    return [
        action.kind
        for action in plan(desired, seen(SimulatedDirector(around(), object_file=FIRST), tencent=observed))
    ]


@pytest.mark.parametrize("gone", [{"mode": "native"}, {"state": "absent"}], ids=["native", "absent"])
def test_what_was_changed_on_tencentos_is_changed_back(gone: dict[str, str]) -> None:
    desired = wish(**gone, tencent_reload=True)
    kinds = leaving(desired, tencent.options_text())
    assert kinds[:5] == [
        tencent.CHECK_EMPTY,
        tencent.UNLOAD,
        owned_files.KIND,
        tencent.LOAD,
        tencent.CHECK_MODE,
    ]
    assert tencent.UNLOAD not in leaving(desired, None), "somebody else has loaded it so"
    with pytest.raises(Unsupported, match="which only loading it anew changes"):
        leaving(wish(**gone), tencent.options_text())


# ---- the daemon ----


def test_the_daemon_is_started_last_but_for_what_is_thrown_away() -> None:
    node = director(BPF)
    assert plan(BPF, replace(node.observe(), follow_unit=RUNNING)) == ()
    actions = plan(BPF, replace(node.observe(), follow_unit=NO_UNIT))
    assert [action.kind for action in actions] == ["file.write", "systemd.enable"]
    assert actions[1].arguments == {"unit": UNIT_NAME, "starts": True}
    first = plan(BPF, replace(SimulatedDirector(around(), object_file=FIRST).observe(), follow_unit=NO_UNIT))
    assert [action.kind for action in first][-2:] == ["file.write", "systemd.enable"]


@pytest.mark.parametrize("desired", [NATIVE, ABSENT], ids=["native", "absent"])
def test_the_daemon_is_ended_first_and_runs_again_on_the_way_back(desired: Desired) -> None:
    actions = plan(desired, replace(director(BPF).observe(), follow_unit=RUNNING))
    assert [action.kind for action in actions][:3] == ["systemd.disable", "file.remove", "ipvs_bpf.set_mode"]
    for action in actions[:2]:
        assert action.undo[-1].arguments == {"unit": UNIT_NAME, "starts": True}


# ---- no way back ----


@pytest.mark.parametrize("desired", [NATIVE, ABSENT], ids=["native", "absent"])
def test_once_it_is_being_unloaded_nothing_is_hung_up_again(desired: Desired) -> None:
    steps, told = 0, set()
    while True:
        node = director(BPF)
        node.fails_after = steps
        try:
            converge(node, desired)
        except ApplyFailed as error:
            if node.pins is None or not node.pins.all_maps:
                told.add(error.undo_errors)
                assert node.table is None
                assert all(hook == (None, None) for hook in node.hooks.values())
        else:
            assert told == {(engine.NO_WAY_BACK,)}
            return
        steps += 1
