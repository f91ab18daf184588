"""The plan of sockops case by case: which actions, on what, in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.desired import Desired
from meshaccel.accelerators.sockops.plan import make_plan
from meshaccel.bpf.ownership import Bpffs
from meshaccel.errors import InvalidInput, MeshaccelError, Unsupported
from meshaccel.holds import Hold
from meshaccel.model import Mode
from meshaccel.ports import PortRange
from tests.unit.simulated_sockops import SimulatedNode
from tests.unit.sockops_scenarios import (
    ABSENT,
    CGROUPS,
    CONNECTIONS,
    DOCUMENT,
    GONE,
    LEFT_BEHIND,
    NEW,
    NOT_MOUNTED,
    OLD,
    OURS,
    OURS_SHARED,
    PATHS,
    THEIRS,
    Scenario,
    node,
    pins,
    policy,
    present,
    wish,
)

if TYPE_CHECKING:
    from meshaccel.model import Action, Plan

A, B = CGROUPS["a"], CGROUPS["b"]
WISH_A = present(wish("a"))
WEB = (PortRange(80, 80),)

#: What an action acts on, by its kind; the rest of its arguments follows from the wish.
TELLING_ARGUMENTS = {
    "sockops.load": ("digest", "maximum_connections"),
    "sockops.load_programs": ("digest",),
    "sockops.switch_programs": ("digest",),
    "sockops.discard_programs": ("digest",),
    "sockops.set_mode": ("mode",),
    "sockops.write_policy": ("policy", "cgroup_id", "mode"),
    "sockops.attach": ("policy", "path"),
    "sockops.detach": ("policy", "path"),
    "file.write": ("path",),
    "file.remove": ("path",),
}

LOAD = f"load {OLD} {CONNECTIONS}"
WRITE = f"write {DOCUMENT}"
REMOVE = f"remove {DOCUMENT}"
JOIN_A = [f"write_policy 1 {A} on", "attach 1 a"]


def outline(plan: Plan) -> list[str]:
    """Return one line for each action: its kind without the prefix, and what it acts on."""
    return [line(action) for action in plan]


def line(action: Action) -> str:
    telling = [str(action.arguments[name]) for name in TELLING_ARGUMENTS.get(action.kind, ())]
    return " ".join([action.kind.rpartition(".")[2], *telling])


def running(desired: Desired = WISH_A, mode: Mode = Mode.ON, hold: Hold | None = None) -> SimulatedNode:
    """Return a node with cgroup a joined as policy 1 and this wish in its file."""
    return node(pins({1: policy(A)}, mode=mode), document=desired.document(), hold=hold)


def without_program(found: SimulatedNode) -> SimulatedNode:
    assert found.pins is not None
    found.pins.links.clear()
    return found


def left_behind(found: SimulatedNode, digest: str) -> SimulatedNode:
    assert found.pins is not None
    found.pins.versions.add(digest)
    return found


def installed(found: SimulatedNode, digest: str) -> SimulatedNode:
    assert found.object_file is not None
    return replace(found, object_file=replace(found.object_file, digest=digest))


@dataclass(frozen=True)
class Case:
    name: str
    node: SimulatedNode
    desired: Desired
    expected: list[str]
    skip_missing: bool = False


ARRIVING = [
    Case("fresh-node", node(), WISH_A, [LOAD, *JOIN_A, "set_mode on", WRITE]),
    Case("fresh-node-off", node(), present(mode=Mode.OFF), [LOAD, WRITE]),
    Case("fresh-node-drain", node(), present(mode=Mode.DRAIN), [LOAD, "set_mode drain", WRITE]),
    Case("no-bpffs", node(bpffs=NOT_MOUNTED), present(), ["mount", LOAD, "set_mode on", WRITE]),
    Case("bpffs-of-somebody-else", node(bpffs=THEIRS), present(), [LOAD, "set_mode on", WRITE]),
    Case(
        "after-a-reboot-the-file-is-as-wished",
        node(document=WISH_A.document()),
        WISH_A,
        [LOAD, *JOIN_A, "set_mode on"],
    ),
    Case(
        "restore-leaves-out-a-cgroup-that-is-not-there-yet",
        node(),
        present(wish("not-yet"), wish("a")),
        [LOAD, *JOIN_A, "set_mode on", WRITE],
        skip_missing=True,
    ),
    Case(
        "first-candidate-that-exists-is-meant",
        node(),
        present(wish("nowhere", "pods/one", "a")),
        [LOAD, f"write_policy 1 {CGROUPS['pods/one']} on", "attach 1 pods/one", "set_mode on", WRITE],
    ),
]

REPLACING = [
    Case(
        "incomplete-pins",
        node(replace(pins({1: policy(A)}), all_maps=False)),
        WISH_A,
        ["unload", LOAD, *JOIN_A, "set_mode on", WRITE],
    ),
    Case(
        "other-layout",
        node(replace(pins({1: policy(A)}), same_layout=False)),
        WISH_A,
        ["unload", LOAD, *JOIN_A, "set_mode on", WRITE],
    ),
    Case(
        "capacity-change",
        running(),
        present(wish("a"), maximum_connections=20),
        ["set_mode off", "release", "unload", f"load {OLD} 20", *JOIN_A, "set_mode on", WRITE],
    ),
    Case(
        "capacity-change-while-off",
        running(mode=Mode.OFF),
        present(wish("a"), mode=Mode.OFF, maximum_connections=20),
        ["release", "unload", f"load {OLD} 20", *JOIN_A, WRITE],
    ),
    Case(
        "digest-update",
        installed(running(), NEW),
        WISH_A,
        [f"load_programs {NEW}", f"switch_programs {NEW}", f"discard_programs {OLD}"],
    ),
    Case(
        "version-left-behind-by-a-killed-run",
        left_behind(running(), LEFT_BEHIND),
        WISH_A,
        [f"discard_programs {LEFT_BEHIND}"],
    ),
    Case(
        "update-to-a-version-left-behind-by-a-killed-run",
        installed(left_behind(running(), NEW), NEW),
        WISH_A,
        [f"load_programs {NEW}", f"switch_programs {NEW}", f"discard_programs {OLD}"],
    ),
    Case(
        "digest-update-switched-off-first",
        installed(running(), NEW),
        replace(WISH_A, mode=Mode.OFF),
        [
            "set_mode off",
            "release",
            f"load_programs {NEW}",
            f"switch_programs {NEW}",
            WRITE,
            f"discard_programs {OLD}",
        ],
    ),
]

CGROUPS_CHANGING = [
    Case("as-wished", running(), WISH_A, []),
    Case("added", running(), present(wish("a"), wish("b")), [f"write_policy 2 {B} on", "attach 2 b", WRITE]),
    Case(
        "removed",
        running(),
        present(),
        [f"write_policy 1 {A} off", "release", "detach 1 a", WRITE],
    ),
    Case(
        "one-leaves-as-another-joins-under-its-own-index",
        running(),
        present(wish("b")),
        [f"write_policy 1 {A} off", "release", "detach 1 a", f"write_policy 2 {B} on", "attach 2 b", WRITE],
    ),
    Case(
        "gone",
        node(pins({1: policy(GONE), 2: policy(A)}), document=WISH_A.document()),
        WISH_A,
        [f"write_policy 1 {GONE} off", "release", "detach 1 None"],
    ),
    Case(
        "made-anew-under-its-path",
        node(pins({1: policy(GONE)}), document=WISH_A.document()),
        WISH_A,
        [f"write_policy 1 {GONE} off", "release", "detach 1 None", f"write_policy 2 {A} on", "attach 2 a"],
    ),
    Case("program-detached-by-hand", without_program(running()), WISH_A, ["attach 1 a"]),
    Case(
        "other-ports",
        running(),
        present(wish("a", ports=WEB)),
        [f"write_policy 1 {A} on", WRITE],
    ),
    Case(
        "other-receive-memory-limit",
        running(),
        present(wish("a"), receive_memory_limit=2**20),
        [f"write_policy 1 {A} on", WRITE],
    ),
    Case("drained", running(), present(wish("a", mode=Mode.DRAIN)), [f"write_policy 1 {A} drain", WRITE]),
    Case(
        "switched-off",
        running(),
        present(wish("a", mode=Mode.OFF)),
        [f"write_policy 1 {A} off", "release", WRITE],
    ),
    Case(
        "held-off",
        running(hold=Hold(cgroups={"a": Mode.OFF})),
        WISH_A,
        [f"write_policy 1 {A} off", "release"],
    ),
    Case("hold-of-a-cgroup-that-is-not-wished", running(hold=Hold(cgroups={"b": Mode.OFF})), WISH_A, []),
]

MODES_CHANGING = [
    Case("on-to-off", running(), replace(WISH_A, mode=Mode.OFF), ["set_mode off", "release", WRITE]),
    Case("on-to-drain", running(), replace(WISH_A, mode=Mode.DRAIN), ["set_mode drain", WRITE]),
    Case("off-to-on", running(mode=Mode.OFF), WISH_A, ["set_mode on"]),
    Case(
        "drain-to-off",
        running(mode=Mode.DRAIN),
        replace(WISH_A, mode=Mode.OFF),
        ["set_mode off", "release", WRITE],
    ),
    Case("off-to-drain", running(mode=Mode.OFF), replace(WISH_A, mode=Mode.DRAIN), ["set_mode drain", WRITE]),
    Case(
        "off-before-a-cgroup-leaves",
        running(),
        present(mode=Mode.OFF),
        ["set_mode off", "release", f"write_policy 1 {A} off", "release", "detach 1 a", WRITE],
    ),
    Case(
        "on-after-a-cgroup-joined",
        running(mode=Mode.OFF),
        present(wish("a"), wish("b")),
        [f"write_policy 2 {B} on", "attach 2 b", "set_mode on", WRITE],
    ),
    Case("held-off", running(hold=Hold(Mode.OFF)), WISH_A, ["set_mode off", "release"]),
    Case("held-off-and-off", running(mode=Mode.OFF, hold=Hold(Mode.OFF)), WISH_A, []),
    Case("held-drain", running(mode=Mode.OFF, hold=Hold(Mode.DRAIN)), WISH_A, ["set_mode drain"]),
]

LEAVING_THE_NODE = [
    Case("fresh-node", node(bpffs=NOT_MOUNTED), ABSENT, []),
    Case("on", running(), ABSENT, ["set_mode off", "release", "unload", REMOVE, "unmount"]),
    Case("off", running(mode=Mode.OFF), ABSENT, ["release", "unload", REMOVE, "unmount"]),
    Case(
        "incomplete-pins",
        node(replace(pins(), all_maps=False)),
        ABSENT,
        ["unload", "unmount"],
    ),
    Case("other-layout", node(replace(pins(), same_layout=False)), ABSENT, ["unload", "unmount"]),
    Case(
        "without-an-object",
        node(pins(mode=Mode.OFF), installed=None),
        ABSENT,
        ["release", "unload", "unmount"],
    ),
    Case("only-the-file", node(bpffs=THEIRS, document=b"{}"), ABSENT, [REMOVE]),
    Case("only-a-hold", node(bpffs=THEIRS, hold=Hold(Mode.OFF)), ABSENT, ["hold"]),
    Case("only-our-bpffs", node(), ABSENT, ["unmount"]),
    Case("our-bpffs-with-pins-of-others", node(bpffs=OURS_SHARED), ABSENT, []),
    Case("cgroups-that-are-not-there", node(bpffs=THEIRS), replace(ABSENT, cgroups=(wish("x"),)), []),
]


def by_name(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


def check(case: Case) -> None:
    scenario = Scenario(case.node.copy(), case.desired, case.skip_missing)
    assert outline(scenario.plan()) == case.expected
    scenario.converge()
    assert scenario.plan() == ()


@pytest.mark.parametrize("case", by_name(ARRIVING))
def test_arriving_loads_switched_off_and_switches_on_at_the_end(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", by_name(REPLACING))
def test_a_version_is_updated_in_place_where_it_can_be(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", by_name(CGROUPS_CHANGING))
def test_only_cgroups_that_differ_are_touched(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", by_name(MODES_CHANGING))
def test_off_comes_first_and_on_comes_last(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", by_name(LEAVING_THE_NODE))
def test_absent_takes_away_what_is_there_and_ours(case: Case) -> None:
    check(case)


def test_an_index_freed_by_a_cgroup_that_left_is_handed_out_again() -> None:
    scenario = Scenario(node(pins({2: policy(B)})), present(wish("a"), wish("b"), wish("c")))
    scenario.converge()
    assert scenario.node.pins is not None
    assert {index: entry.cgroup_id for index, entry in scenario.node.pins.policies.items()} == {
        1: A,
        2: B,
        3: CGROUPS["c"],
    }


FULL = SimulatedNode(
    cgroups={str(number): number for number in range(1, layout.POLICIES + 1)},
    object_file=node().object_file,
    bpffs=OURS,
    pins=pins({index: policy(index) for index in range(1, layout.POLICIES)}),
)
READ_ONLY = Bpffs(mounted=True, read_only=True)

REFUSALS = [
    pytest.param(
        node(),
        present(wish("a"), wish("x", "y")),
        InvalidInput,
        ["cgroup x", "x, y", "start"],
        id="no-cgroup",
    ),
    pytest.param(
        node(),
        present(wish("x"), wish("y")),
        InvalidInput,
        ["x, y", "looked for x)", "parent"],
        id="every-missing-cgroup-is-named",
    ),
    pytest.param(
        node(installed=None), WISH_A, Unsupported, ["BPF object", "none", "node_runtime"], id="no-object"
    ),
    pytest.param(
        node(bpffs=READ_ONLY),
        WISH_A,
        Unsupported,
        [PATHS.pins, "read-only", "remount,rw"],
        id="bpffs-read-only",
    ),
    pytest.param(
        FULL,
        present(*(wish(str(number)) for number in range(2, layout.POLICIES + 1))),
        Unsupported,
        ["policy for cgroup 256", "all 255 taken", "run again"],
        id="all-policies-taken",
    ),
]


@pytest.mark.parametrize(("found", "desired", "kind", "words"), REFUSALS)
def test_a_plan_that_cannot_be_made_says_wanted_found_and_what_to_do(
    found: SimulatedNode, desired: Desired, kind: type[MeshaccelError], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        make_plan(desired, found.observe(desired, DOCUMENT), PATHS)
    error = caught.value
    said = [error.wanted, error.found, error.remedy]
    assert [word for word, part in zip(words, said, strict=True) if word not in part] == []


def test_absent_needs_no_writable_bpffs_and_no_object() -> None:
    bare = node(bpffs=READ_ONLY, installed=None)
    assert make_plan(ABSENT, bare.observe(ABSENT, DOCUMENT), PATHS) == ()
