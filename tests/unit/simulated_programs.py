"""A node without a kernel for declared programs, and wishes and nodes for tests of their plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from meshaccel import engine
from meshaccel.bpf.attach import LinkInformation, MapInformation
from meshaccel.bpf.ownership import Bpffs
from meshaccel.bpf.program.desired import STAGED, Desired, Places, parse
from meshaccel.bpf.program.loading import Candidate, ProgramFacts
from meshaccel.bpf.program.observe import Observed
from meshaccel.bpf.program.plan import make_plan
from meshaccel.paths import NodePaths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.model import Action, Json, Plan

PATHS = NodePaths()
SOCK_OPS_KIND, SOCK_OPS, EGRESS_KIND, EGRESS, SOCKET_KIND = 13, 3, 8, 1, 1
CGROUPS = {101: "a", 102: "b", 103: "c"}
SHARED_PIN = "shared_maps/ports"
RAW: dict[str, Any] = {"state": "present", "pin": "count", "object": "/o", "program": "p"}


def map_information(name: str, identifier: int = 0, entries: int = 8) -> MapInformation:
    return MapInformation(identifier, entries, key_size=2, value_size=4, kind=1, flags=0, name=name)


SHARED = map_information("ports", identifier=7, entries=99)


@dataclass(frozen=True)
class Version:
    """A version of the object: its code, where it attaches, its maps and their sizes."""

    tag: str
    attach_type: int = SOCK_OPS
    constants: str = "none"
    maps: tuple[tuple[str, int], ...] = (("ports", 8), ("counts", 8))

    def candidate(self) -> Candidate:
        declared = {name: map_information(name, 1000 + at, size) for at, (name, size) in enumerate(self.maps)}
        kind = SOCK_OPS_KIND if self.attach_type == SOCK_OPS else EGRESS_KIND
        facts = ProgramFacts(999, kind, self.tag, self.constants, tuple(declared.values()))
        return Candidate(facts, self.attach_type, declared)


VERSIONS = (
    Version("one"),
    Version("one", constants="others"),
    Version("two", maps=(("ports", 16), ("counts", 8))),
    Version("three", attach_type=EGRESS, maps=(("counts", 8),)),
)


@dataclass
class SimulatedNode:
    """What is pinned, by path. Handlers keep the contract of the real ones: done twice is fine."""

    pins: dict[str, Any] = field(default_factory=dict)
    bpffs: Bpffs = field(default_factory=lambda: Bpffs(mounted=False))
    number: int = 2000
    candidate: Candidate | None = None
    loaded: ProgramFacts | None = None
    made: dict[str, MapInformation] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)

    def next(self) -> int:
        self.number += 1
        return self.number

    def observe(self, wish: Wish) -> Observed:
        places = Places.of(wish.desired, PATHS)
        shared = self.pins.get(f"{PATHS.pins}/{SHARED_PIN}")
        links = below(self.pins, places.links)
        return Observed(
            bpffs=self.bpffs,
            pins=frozenset(self.pins),
            pinned=self.pins.get(places.program),
            map_pins=below(self.pins, places.maps),
            links=links,
            candidate=wish.version.candidate() if wish.desired.present else None,
            reused=dict.fromkeys(wish.desired.reuse_maps, shared) if shared else {},
            wished_cgroups={number: CGROUPS[number] for number in wish.cgroups},
            linked_cgroups={link.cgroup_id: CGROUPS.get(link.cgroup_id, "gone") for link in links.values()},
        )

    def plan(self, wish: Wish) -> Plan:
        return make_plan(wish.desired, self.observe(wish), Places.of(wish.desired, PATHS), PATHS)

    def converge(self, wish: Wish, failing: int | None = None) -> None:
        passed: list[Action] = []

        def fail_there(action: Action) -> None:
            passed.append(action)
            if failing is not None and len(passed) > failing:
                raise OSError("injected")

        self.candidate, self.loaded = wish.version.candidate(), None
        self.kept, self.ran = {}, {}
        engine.converge(
            lambda: self.observe(wish),
            lambda seen: make_plan(wish.desired, seen, Places.of(wish.desired, PATHS), PATHS),
            self.handlers(),
            before_action=fail_there,
        )

    def handlers(self) -> dict[str, engine.Handler]:
        return {
            "bpffs.mount": self.mount,
            "bpffs.unmount": self.unmount,
            "bpf_program.load": self.load,
            "bpf_program.pin": self.pin,
            "bpf_program.unpin": self.unpin,
            "bpf_program.restore_pin": self.restore_pin,
            "bpf_program.attach": self.attach,
            "bpf_program.update_link": self.update_link,
            "bpf_program.restore_link": self.restore_link,
        }

    def mount(self, _: Mapping[str, Json]) -> None:
        self.bpffs = Bpffs(mounted=True, ours=True)

    def unmount(self, _: Mapping[str, Json]) -> None:
        assert not self.pins, "unmounted with pins in it"
        self.bpffs = Bpffs(mounted=False)

    def load(self, arguments: Mapping[str, Json]) -> None:
        assert self.candidate is not None
        reused = {name: self.pins[path] for name, path in arguments["reuse"].items()}
        self.made = {
            name: reused.get(name) or replace(entry, identifier=self.next())
            for name, entry in self.candidate.maps.items()
        }
        maps = tuple(self.made.values())
        self.loaded = replace(self.candidate.facts, identifier=self.next(), maps=maps)

    def pin(self, arguments: Mapping[str, Json]) -> None:
        assert self.bpffs.mounted, "pinned with no bpffs there"
        path, name = arguments["path"], arguments["map"]
        if path in self.pins:
            self.kept.setdefault(path, self.pins[path])
        self.pins[path] = self.loaded if name is None else self.made[name]

    def unpin(self, arguments: Mapping[str, Json]) -> None:
        if arguments["path"] in self.pins:
            self.kept.setdefault(arguments["path"], self.pins.pop(arguments["path"]))
            self.pins.pop(arguments["path"], None)

    def restore_pin(self, arguments: Mapping[str, Json]) -> None:
        if arguments["path"] in self.kept:
            self.pins[arguments["path"]] = self.kept[arguments["path"]]

    def attach(self, arguments: Mapping[str, Json]) -> None:
        assert arguments["link"] not in self.pins, "the name of the link is taken"
        program = self.pins[arguments["program"]].identifier
        identifier = next(number for number, path in CGROUPS.items() if path == arguments["cgroup"])
        self.pins[arguments["link"]] = LinkInformation(
            self.next(), program, identifier, arguments["attach_type"]
        )

    def update_link(self, arguments: Mapping[str, Json]) -> None:
        link = self.pins[arguments["link"]]
        self.ran[arguments["link"]] = link.program_id
        program = self.pins[arguments["program"]].identifier
        self.pins[arguments["link"]] = replace(link, program_id=program)

    def restore_link(self, arguments: Mapping[str, Json]) -> None:
        path = arguments["link"]
        if path in self.ran:
            self.pins[path] = replace(self.pins[path], program_id=self.ran[path])


@dataclass(frozen=True)
class Wish:
    """A wish together with the object as it then is."""

    desired: Desired
    version: Version = VERSIONS[0]
    cgroups: tuple[int, ...] = ()


def below(pins: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Return the pins directly in a directory, by name."""
    prefix = directory + "/"
    return {path[len(prefix) :]: pinned for path, pinned in pins.items() if path.startswith(prefix)}


def wish(version: int = 0, cgroups: tuple[int, ...] = (), **settings: Any) -> Wish:
    """Return a wish that is fulfilled by a version of the object."""
    desired = parse({**RAW, **settings, "cgroups": [CGROUPS[number] for number in cgroups]}, PATHS)
    return Wish(desired, VERSIONS[version], cgroups)


ABSENT = wish(state="absent")


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    version = draw(st.integers(0, len(VERSIONS) - 1))
    reusable = "ports" in dict(VERSIONS[version].maps)
    reuse = {"ports": SHARED_PIN} if reusable and draw(st.booleans()) else {}
    cgroups = tuple(draw(st.sets(st.sampled_from(sorted(CGROUPS)))))
    return wish(version, cgroups, reuse_maps=reuse, pin_maps=draw(st.booleans()))


@st.composite
def nodes(draw: st.DrawFn) -> SimulatedNode:
    """Return a node as former wishes and hands that meddled with pins may have left it."""
    node = SimulatedNode(bpffs=draw(st.sampled_from([Bpffs(mounted=True), Bpffs(mounted=True, ours=True)])))
    node.pins[f"{PATHS.pins}/{SHARED_PIN}"] = SHARED
    if draw(st.booleans()):
        node.converge(draw(wishes()))
    for path in draw(st.sets(st.sampled_from(sorted(node.pins)))) if draw(st.booleans()) else ():
        if SHARED_PIN not in path:
            del node.pins[path]
    for path, link in below(node.pins, f"{PATHS.pins}/count_links").items():
        meddled = draw(st.sampled_from([link, replace(link, program_id=5), replace(link, cgroup_id=0)]))
        node.pins[f"{PATHS.pins}/count_links/{path}"] = meddled
    for path, entry in below(node.pins, f"{PATHS.pins}/count_maps").items():
        meddled = draw(st.sampled_from([entry, replace(entry, identifier=6)]))
        node.pins[f"{PATHS.pins}/count_maps/{path}"] = meddled
    if draw(st.booleans()):
        node.pins[f"{PATHS.pins}/{STAGED}"] = SHARED
    return node
