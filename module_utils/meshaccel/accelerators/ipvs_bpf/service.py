# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""ipvs_bpf as one call: converge, restore, switch. Modules, the command and the daemon use these."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ... import engine, holds, kept_wish
from ...bpf.loaders import Loader
from ...bpf.object_file import expected_or_installed
from ...bpf.pins import PinPlaces
from ...errors import InvalidInput
from ...model import Json, Mode, Plan
from ...paths import NodePaths
from . import NAME, handlers, layout, mode_handlers, reservation, sessions
from .control import write_mode
from .description import describe, describe_observed
from .desired import Desired, load_document, parse
from .observe import observe, observe_loaded, places
from .plan import make_plan
from .resolution import PROGRAM_MODES, Resolved, resolve
from .selection import Selection
from .state import Observed, Surroundings
from .surroundings import Readers, look

ABSENT = {"state": "absent"}


@dataclass(frozen=True)
class IpvsResult(engine.Result):
    """A converge of ipvs_bpf, and the services that stay native with the reason."""

    native: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class IpvsBpf:
    """The accelerator on one node.

    With an expected digest plans are made for that object, installed or not;
    loading checks that it is the one. Without, the installed one is meant.
    """

    paths: NodePaths
    object_path: str
    expected_digest: str | None = None
    readers: Readers = field(default_factory=Readers)
    #: Where /proc/sys and /etc are; tests give their own.
    root: str = "/"

    @classmethod
    def on_this_node(cls, paths: NodePaths, expected_digest: str | None = None) -> IpvsBpf:
        """Returns the accelerator of an installation."""
        return cls(paths, paths.bpf_object(NAME), expected_digest)

    @classmethod
    def wished(cls, raw: Mapping[str, Json], paths: NodePaths) -> tuple[IpvsBpf, Desired]:
        """Parses role variables, the digest of the object among them; returns what they wish, and of what.

        Raises InvalidInput.
        """
        settings = dict(raw)
        accelerator = cls.on_this_node(paths, settings.pop("object_digest", None))
        return accelerator, accelerator.parse(settings)

    def parse(self, raw: Mapping[str, Json]) -> Desired:
        """Parses role variables; raises InvalidInput."""
        return parse(raw)

    def look(self, desired: Desired) -> Run:
        """Looks at what changes by itself, for one run."""
        return Run(self, desired, *look(desired, self.readers))

    def converge(
        self,
        desired: Desired,
        *,
        check_mode: bool = False,
        before_action: engine.BeforeAction = engine.ignore,
    ) -> IpvsResult:
        """Makes the node as wished. The caller holds the node's lock.

        Raises MeshaccelError; on failure the node is back where it was, or the
        error says what is not.
        """
        if desired.present and desired.bpf and not check_mode:
            # Its settings exist only once it is there, so no plan could be made before.
            self.readers.ensure()
        run = self.look(desired)
        notes: list[str] = []
        outcome = engine.converge(
            run.observe,
            run.make_plan,
            handlers.table(self.paths, notes, self.root),
            check_mode=check_mode,
            before_action=before_action,
        )
        resolved = run.resolve(outcome.before)
        return IpvsResult(
            outcome.actions,
            describe_observed(outcome.before),
            describe(desired, resolved, outcome.before),
            (*notes, *occupied_words(resolved)),
            dict(resolved.native),
        )

    def kept_wish(self) -> Desired:
        """Returns the wish kept on the node; raises InvalidInput when there is none, or it is damaged."""
        return load_document(kept_wish.require(self.paths, NAME), self.paths.desired(NAME))

    def restore(self, before_action: engine.BeforeAction = engine.ignore) -> engine.Result:
        """Brings back the wish kept on the node. The caller holds the node's lock.

        Raises InvalidInput when no wish is kept or its file is damaged.
        """
        return self.converge(self.kept_wish(), before_action=before_action)

    # ---- by hand ----

    def switch_live(self, mode: Mode) -> int:
        """Writes the mode at once; returns how many masqueraded sessions end by it.

        Raises InvalidInput when ipvs_bpf is not loaded.
        """
        pins = self.pins
        if not pins.maps_complete(layout.MAP_SIZES):
            raise InvalidInput(
                wanted=f"ipvs_bpf loaded, to switch it {mode.value}",
                found="it is not, so all flows are conntrack's",
                remedy="run `meshaccel restore` or the playbook",
            )
        write_mode(pins, PROGRAM_MODES[mode])
        if mode is not Mode.OFF:
            return 0
        now = sessions.monotonic()
        alive = (session for session in sessions.sessions(sessions.read(pins)) if session.alive(now))
        return sum(session.masqueraded for session in alive)

    def hold(self, mode: Mode) -> None:
        """Holds a mode against the desired state; ``on`` lifts what is held."""
        before = holds.read(self.paths, NAME)
        holds.write(self.paths, NAME, replace(before, mode=None if mode is Mode.ON else mode))

    def tend(self) -> list[str]:
        """Ends flows that are over where no timer does, and frees ports that conntrack has given back.

        Returns what was done, in words. The caller holds the node's lock.
        """
        loaded = observe_loaded(self.pins)
        if loaded is None or not loaded.usable or loaded.settings is None:
            return []
        table = sessions.read(self.pins)
        over: list[sessions.Key] = []
        if not os.path.exists(self.pins.program(loaded.digest, layout.AGEING_PROGRAM)):
            over = sessions.aged(table, loaded.settings, sessions.monotonic())
        reserved = {key for key, flow in table.items() if flow.kind == layout.FlowKind.RESERVED}
        free = reserved - reservation.taken(loaded.devices.values()) if reserved else set()
        mode_handlers.delete(self.pins, [*over, *free])
        words = [f"{len(over)} flows were over"] if over else []
        return [*words, *([f"{len(free)} reserved ports are free again"] if free else [])]

    @property
    def pins(self) -> PinPlaces:
        """Where its pins are."""
        return places(self.paths)

    @property
    def present(self) -> bool:
        """True when anything is pinned, or a wish kept."""
        return os.path.isdir(self.pins.root) or os.path.exists(self.paths.desired(NAME))


@dataclass(frozen=True)
class Run:
    """One run: a wish, with what it lives among as it was when the run began.

    Pods and services come and go at any moment; what does so meanwhile is the next
    run's, or none would ever find the node as wished.
    """

    accelerator: IpvsBpf
    desired: Desired
    surroundings: Surroundings
    selection: Selection

    def observe(self, *, nft: bool = True) -> Observed:
        """Reads the node's state; without ``nft`` as if there were no table."""
        accelerator = self.accelerator
        wished = expected_or_installed(accelerator.object_path, accelerator.expected_digest, Loader.LIBBPF)
        return observe(
            accelerator.paths,
            wished,
            self.surroundings,
            nft=(self.desired.present and self.desired.bpf) if nft else None,
            ipvs_loaded=accelerator.readers.loaded(),
            root=accelerator.root,
        )

    def resolve(self, observed: Observed) -> Resolved:
        """Returns the wish in terms of this node."""
        return resolve(self.desired, self.surroundings, self.selection, observed.hold.mode, observed.occupied)

    def make_plan(self, observed: Observed) -> Plan:
        """Returns the actions that are missing."""
        return make_plan(self.desired, self.resolve(observed), observed, self.accelerator.paths)


def occupied_words(resolved: Resolved) -> Iterator[str]:
    """Yields what the operator should know of devices that stay native since others are in our place."""
    for name, reason in resolved.occupied.items():
        yield f"the device {name} stays native: {reason}"
