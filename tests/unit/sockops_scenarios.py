"""Wishes and nodes for the planner of sockops: builders for tables, strategies for properties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.accelerators.sockops import NAME
from meshaccel.accelerators.sockops.denials.executables import DeniedProcess
from meshaccel.accelerators.sockops.denials.networks import DeniedNetwork
from meshaccel.accelerators.sockops.denials.observe import Denied
from meshaccel.accelerators.sockops.desired import CgroupWish, Desired
from meshaccel.accelerators.sockops.plan import make_plan
from meshaccel.bpf.loaders import Loader
from meshaccel.bpf.object_file import ObjectFile
from meshaccel.bpf.ownership import Bpffs
from meshaccel.holds import Hold
from meshaccel.model import Mode
from meshaccel.paths import NodePaths
from meshaccel.ports import PortRange
from tests.unit.simulated_sockops import KernelPolicy, Link, Pins, SimulatedNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.accelerators.sockops.observe import Observed
    from meshaccel.model import Plan

PATHS = NodePaths()
DOCUMENT = PATHS.desired(NAME)
OLD, NEW, LEFT_BEHIND = "1" * 16, "2" * 16, "3" * 16
LIMIT = 65536
CONNECTIONS = 10
#: The cgroups there can be, and their ids; a cgroup that is made anew under its old path has another id.
CGROUPS = {"a": 101, "b": 102, "c": 103, "pods/one": 104}
GONE = 999

OURS = Bpffs(mounted=True, ours=True)
OURS_SHARED = Bpffs(mounted=True, ours=True, shared=True)
THEIRS = Bpffs(mounted=True)
NOT_MOUNTED = Bpffs(mounted=False)


@dataclass(frozen=True)
class Scenario:
    """A node and a wish for it."""

    node: SimulatedNode
    desired: Desired
    skip_missing: bool = False

    def observe(self) -> Observed:
        return self.node.observe(self.desired, DOCUMENT)

    def plan(self) -> Plan:
        return make_plan(self.desired, self.observe(), PATHS, skip_missing=self.skip_missing)

    def converge(self) -> engine.Outcome[Observed]:
        return engine.converge(
            self.observe,
            lambda seen: make_plan(self.desired, seen, PATHS, skip_missing=self.skip_missing),
            self.node.handlers(),
        )


# ---- builders for tables ----


def wish(
    *candidates: str,
    mode: Mode = Mode.ON,
    ports: tuple[PortRange, ...] = (),
) -> CgroupWish:
    return CgroupWish(label=candidates[0], candidates=candidates, mode=mode, ports=ports)


def present(
    *cgroups: CgroupWish,
    mode: Mode = Mode.ON,
    maximum_connections: int = CONNECTIONS,
    receive_memory_limit: int = LIMIT,
    adopt_existing: bool = False,
) -> Desired:
    return Desired(
        present=True,
        mode=mode,
        cgroups=cgroups,
        maximum_connections=maximum_connections,
        receive_memory_limit=receive_memory_limit,
        adopt_existing=adopt_existing,
    )


ABSENT = replace(present(), present=False)


def policy(
    cgroup_id: int,
    mode: Mode = Mode.ON,
    ports: tuple[PortRange, ...] = (),
    receive_memory_limit: int = LIMIT,
) -> KernelPolicy:
    return KernelPolicy(cgroup_id, mode, ports, receive_memory_limit)


def pins(policies: Mapping[int, KernelPolicy] | None = None, mode: Mode = Mode.ON, digest: str = OLD) -> Pins:
    """Return complete pins with a program at work for every policy."""
    entries = dict(policies or {})
    return Pins(
        digest=digest,
        mode=mode,
        maximum_connections=CONNECTIONS,
        versions={digest},
        policies=entries,
        links={index: Link(entry.cgroup_id, digest) for index, entry in entries.items()},
        assignments={entry.cgroup_id: index for index, entry in entries.items()},
    )


def node(
    pinned: Pins | None = None,
    *,
    bpffs: Bpffs = OURS,
    installed: str | None = OLD,
    document: bytes | None = None,
    hold: Hold | None = None,
) -> SimulatedNode:
    """Return a node on which every cgroup of CGROUPS is alive."""
    return SimulatedNode(
        cgroups=dict(CGROUPS),
        object_file=ObjectFile("/lib/sockops.bpf.o", installed) if installed else None,
        bpffs=bpffs,
        pins=pinned,
        files={} if document is None else {DOCUMENT: document},
        hold=hold or Hold(),
    )


# ---- strategies for properties ----

modes = st.sampled_from(Mode)
held_modes = st.sampled_from([Mode.OFF, Mode.DRAIN])
port_lists = st.sampled_from([(), (PortRange(80, 80),), (PortRange(80, 80), PortRange(8000, 8100))])
limits = st.sampled_from([LIMIT, 2 * LIMIT])
capacities = st.sampled_from([CONNECTIONS, 2 * CONNECTIONS])
digests = st.sampled_from([OLD, NEW])
names = st.sampled_from(sorted(CGROUPS))

cgroup_wishes = st.lists(
    st.builds(
        lambda path, mode, ports: wish(f"elsewhere/{path}", path, mode=mode, ports=ports),
        names,
        modes,
        port_lists,
    ),
    unique_by=lambda entry: entry.candidates,
).map(tuple)

presents = st.builds(
    Desired,
    present=st.just(value=True),
    mode=modes,
    cgroups=cgroup_wishes,
    maximum_connections=capacities,
    receive_memory_limit=limits,
    adopt_existing=st.booleans(),
    loader=st.sampled_from(Loader),
)
absents = presents.map(lambda desired: replace(desired, present=False))

denied_networks = st.sampled_from(
    [(), (DeniedNetwork("10.0.0.0/8"),), (DeniedNetwork("fd00::/8", (PortRange(80, 80),)),)]
)
denials = st.builds(
    Denied,
    denied_networks,
    st.lists(
        names.map(lambda path: DeniedProcess(path, CGROUPS[path], 42, "/usr/sbin/haproxy")),
        unique=True,
        max_size=2,
    ).map(tuple),
)

holds = st.builds(Hold, st.none() | held_modes, st.dictionaries(names, held_modes, max_size=2))


@st.composite
def complete_pins(draw: st.DrawFn) -> Pins:
    """A loaded version; cgroups may be gone, a program detached by hand, another version left behind."""
    identifiers = draw(st.lists(st.sampled_from([*CGROUPS.values(), GONE]), unique=True))
    indexes = draw(
        st.lists(
            st.integers(1, 8) | st.just(255),
            unique=True,
            min_size=len(identifiers),
            max_size=len(identifiers),
        )
    )
    entries = {
        index: draw(st.builds(policy, st.just(identifier), modes, port_lists, limits))
        for index, identifier in zip(indexes, identifiers, strict=True)
    }
    found = pins(entries, mode=draw(modes), digest=draw(digests))
    found.maximum_connections = draw(capacities)
    found.denied_networks = draw(denied_networks)
    found.versions |= draw(st.sets(st.sampled_from([NEW, LEFT_BEHIND]), max_size=1))
    if indexes:
        found.tracked |= draw(st.sets(st.sampled_from(indexes)))
        for index in draw(st.sets(st.sampled_from(indexes), max_size=1)):
            del found.links[index]
    return found


@st.composite
def pins_without_a_map(draw: st.DrawFn) -> Pins:
    return replace(draw(complete_pins()), all_maps=False)


@st.composite
def pins_of_another_layout(draw: st.DrawFn) -> Pins:
    return replace(draw(complete_pins()), same_layout=False)


any_pins = st.none() | complete_pins() | pins_without_a_map() | pins_of_another_layout()


@st.composite
def nodes(
    draw: st.DrawFn,
    pinned: st.SearchStrategy[Pins | None] = any_pins,
    held: st.SearchStrategy[Hold] = holds,
) -> SimulatedNode:
    """Any node; the BPF object is installed and the cgroups of CGROUPS are alive."""
    found = draw(pinned)
    documents = st.none() | presents.map(Desired.document) | st.just(b"\xff edited by hand")
    mounts = [OURS, OURS_SHARED, THEIRS] if found else [OURS, OURS_SHARED, THEIRS, NOT_MOUNTED]
    drawn = node(
        found,
        bpffs=draw(st.sampled_from(mounts)),
        installed=draw(digests),
        document=draw(documents),
        hold=draw(held),
    )
    drawn.denied = draw(denials)
    return drawn


@st.composite
def scenarios(
    draw: st.DrawFn,
    wishes: st.SearchStrategy[Desired] = presents | absents,
    found: st.SearchStrategy[SimulatedNode] | None = None,
) -> Scenario:
    """Any node with any wish; with skip_missing some cgroups may not be there."""
    drawn = draw(nodes() if found is None else found)
    skip_missing = draw(st.booleans())
    if skip_missing:
        for path in draw(st.sets(names, max_size=2)):
            del drawn.cgroups[path]
    return Scenario(drawn, draw(wishes), skip_missing)


@st.composite
def small_changes(draw: st.DrawFn) -> Scenario:
    """A loaded node and a wish that keeps some of its cgroups as they are."""
    drawn = draw(nodes(complete_pins(), st.just(Hold())))
    loaded = Scenario(drawn, present()).observe().loaded
    assert loaded is not None
    kept = [
        wish(entry.path, mode=entry.mode, ports=entry.ports)
        for entry in loaded.attachments
        if entry.path is not None and entry.receive_memory_limit == LIMIT and draw(st.booleans())
    ]
    known = {path for entry in kept for path in entry.candidates}
    added = [entry for entry in draw(cgroup_wishes) if not known.intersection(entry.candidates)]
    mode, capacity = draw(modes), loaded.maximum_connections
    return Scenario(drawn, present(*kept, *added, mode=mode, maximum_connections=capacity))
