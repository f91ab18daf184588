# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""sockops as one call: converge, switch, status. Modules and the command use these."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

from ... import engine, holds, kept_wish
from ...bpf import maps
from ...bpf.object_file import observe_object, require_object
from ...errors import InvalidInput
from ...model import Json, Mode
from ...paths import NodePaths
from ...system import cgroups, files
from . import NAME, layout
from .denials.handlers import DenialHandlers
from .denials.observe import Denied
from .denials.plan import describe as describe_denied
from .description import describe, describe_observed
from .desired import Desired, load_document, parse
from .handlers import Handlers
from .object_file import Objects
from .observe import Observed, Places, denied_here, kept_loader, observe, observe_loaded, pins_complete
from .plan import make_plan, switched_off
from .relays.handlers import RelayHandlers
from .relays.observe import Places as RelayPlaces
from .relays.status import relays_status
from .resolution import resolve

ABSENT = {"state": "absent"}
MOST_KEYS_WALKED = 1 << 20


@dataclass(frozen=True)
class Sockops:
    """The accelerator on one node.

    With an expected digest plans are made for that object, installed or not;
    loading checks that it is the one. Without, the installed one is meant. The
    object for relays lies beside it and has a digest of its own.
    """

    paths: NodePaths
    hierarchy: cgroups.Hierarchy
    object_path: str
    expected_digest: str | None = None
    expected_relay_digest: str | None = None

    @classmethod
    def on_this_node(
        cls,
        paths: NodePaths,
        expected_digest: str | None = None,
        expected_relay_digest: str | None = None,
    ) -> Sockops:
        """Returns the accelerator of an installation; raises Unsupported without cgroup2."""
        path = paths.bpf_object(NAME)
        return cls(paths, cgroups.hierarchy(), path, expected_digest, expected_relay_digest)

    @classmethod
    def wished(cls, raw: Mapping[str, Json], paths: NodePaths) -> tuple[Sockops, Desired]:
        """Parses role variables, the digests of the objects among them; returns what they wish, and of what.

        Raises InvalidInput, and Unsupported without cgroup2.
        """
        settings = dict(raw)
        digests = (settings.pop("object_digest", None), settings.pop("relay_object_digest", None))
        sockops = cls.on_this_node(paths, *digests)
        return sockops, sockops.parse(settings)

    def parse(self, raw: Mapping[str, Json]) -> Desired:
        """Parses role variables; raises InvalidInput."""
        return parse(raw, self.hierarchy)

    def observe(self, desired: Desired, denied: Denied) -> Observed:
        """Reads the node's state for a wish, and for what it denies here."""
        loader = desired.loader if desired.present else kept_loader(self.paths)
        objects = Objects.find(self.object_path, self.expected_digest, self.expected_relay_digest, loader)
        return observe(desired, self.paths, self.hierarchy, objects, denied=denied)

    def converge(
        self,
        desired: Desired,
        *,
        check_mode: bool = False,
        skip_missing: bool = False,
        before_action: engine.BeforeAction = engine.ignore,
    ) -> engine.Result:
        """Makes the node as wished. The caller holds the node's lock.

        Raises MeshaccelError; on failure the node is back where it was, or the
        error says what is not.
        """
        handlers, places = Handlers(self.paths, self.hierarchy), Places.of(self.paths)
        denied = denied_here(desired, self.hierarchy)
        outcome = engine.converge(
            lambda: self.observe(desired, denied),
            lambda seen: make_plan(desired, seen, self.paths, skip_missing=skip_missing),
            {
                **handlers.table(),
                **DenialHandlers(places).table(),
                **RelayHandlers(places.root, self.hierarchy).table(),
            },
            check_mode=check_mode,
            before_action=before_action,
        )
        return engine.Result(
            outcome.actions,
            describe_observed(outcome.before),
            describe(desired, outcome.before),
            (*handlers.notes, *denied.notes),
        )

    def restore(self, before_action: engine.BeforeAction = engine.ignore) -> engine.Result:
        """Brings back the wish kept on the node.

        At boot the named cgroups are not there yet. A slice is made, so that what
        starts in it later is accelerated from its first connection on; another
        cgroup is left out. The caller holds the node's lock.

        Raises InvalidInput when no wish is kept or its file is damaged.
        """
        desired = load_document(kept_wish.require(self.paths, NAME), self.paths.desired(NAME))
        notes = [f"made cgroup {path}, for what will run in it" for path in self._make_slices(desired)]
        result = self.converge(desired, skip_missing=True, before_action=before_action)
        missing = resolve(desired, self.observe(desired, Denied())).missing
        notes += [f"cgroup {name} is not there; restore again once it is" for name in missing]
        return replace(result, notes=(*result.notes, *notes))

    def switch(self, mode: Mode, cgroup: str | None = None) -> None:
        """Switches the node or one cgroup at once, and holds it so for later runs."""
        self.switch_live(mode, cgroup)
        self.hold(mode, cgroup)

    def switch_live(self, mode: Mode, cgroup: str | None = None) -> None:
        """Sets the live mode of the node or of one cgroup: one map write.

        Connections stay in the table, so a later ``on`` accelerates them again;
        release() gives them back to TCP. Raises InvalidInput when sockops is not
        loaded or the cgroup is not opted in.
        """
        if not pins_complete(Places.of(self.paths)):
            raise InvalidInput(
                wanted=f"sockops loaded, to switch it {mode.value}",
                found="it is not, so all traffic is on the kernel's path",
                remedy="run `meshaccel restore` or the playbook",
            )
        if cgroup is None:
            Handlers(self.paths, self.hierarchy).write_mode(mode)
        else:
            self._write_cgroup_mode(self.hierarchy.relative(cgroup), mode)

    def hold(self, mode: Mode, cgroup: str | None = None) -> None:
        """Holds a mode against the desired state; ``on`` lifts what is held.

        Raises InvalidInput when the file of what is held is damaged.
        """
        before = holds.read(self.paths, NAME)
        kept_mode = None if mode is Mode.ON else mode
        if cgroup is None:
            holds.write(self.paths, NAME, replace(before, mode=kept_mode))
            return
        path = self.hierarchy.relative(cgroup)
        kept = {name: value for name, value in before.cgroups.items() if name != path}
        if kept_mode is not None:
            kept[path] = kept_mode
        holds.write(self.paths, NAME, replace(before, cgroups=kept))

    def adopts_existing(self) -> bool:
        """True when the wish kept on the node says that live connections are taken over.

        Raises InvalidInput when its file is damaged.
        """
        path = self.paths.desired(NAME)
        content = files.read(path)
        return content is not None and load_document(content, path).adopt_existing

    def adopt(self) -> str:
        """Takes over the live connections between opted-in cgroups; returns what came of it.

        The caller holds the node's lock. Takes half a second, at most some five.
        Raises Unsupported when the kernel cannot (5.12 and newer can).
        """
        # Reading sockets costs imports that nothing else here has a use for.
        from .adoption.service import adopt_live_connections

        installed = require_object(observe_object(self.object_path, kept_loader(self.paths)), NAME)
        return str(adopt_live_connections(installed, Places.of(self.paths), self.hierarchy))

    def release(self) -> tuple[str, ...]:
        """Gives connections that are switched off back to plain TCP.

        Takes some two seconds. Returns notes on what could not be given back yet.
        """
        handlers = Handlers(self.paths, self.hierarchy)
        handlers.release(switched_off().arguments)
        return tuple(handlers.notes)

    def status(self) -> dict[str, Json]:
        """Returns mode, cgroups, counters and table use, as plain data."""
        loaded = observe_loaded(Places.of(self.paths), self.hierarchy, {})
        if loaded is None:
            return dict(ABSENT)
        if not loaded.complete:
            return {"state": "incomplete"}
        counters = self.counters()
        return {
            "state": "present",
            "mode": loaded.mode.value,
            "held": holds.words(self.paths, NAME),
            "object": loaded.digest,
            "maximum_connections": loaded.maximum_connections,
            "denied_networks": describe_denied(loaded.denied_networks),
            "connections": self.live_sockets() // layout.SOCKETS_PER_CONNECTION,
            "cgroups": {
                entry.path or f"gone (id {entry.cgroup_id})": {
                    "mode": entry.mode.value,
                    "attached": entry.attached,
                    "ports": [str(ports) for ports in entry.ports] or "all",
                    "counters": counters[entry.policy],
                }
                for entry in loaded.attachments
            },
            "counters": total(list(counters.values())),
            "relays": relays_status(RelayPlaces.below(Places.of(self.paths).root)),
        }

    def counters(self) -> dict[int, dict[str, int]]:
        """Returns the counters of every policy, summed over CPUs."""
        result: dict[int, dict[str, int]] = {}
        with maps.Map.pinned(
            Places.of(self.paths).map("counters"), ctypes.c_uint32, layout.Counters
        ) as counters:
            for index in range(layout.POLICIES):
                cpus = counters.read_per_cpu(ctypes.c_uint32(index))
                result[index] = total(
                    [{name: getattr(cpu, name) for name in layout.COUNTER_NAMES} for cpu in cpus]
                )
        return result

    def live_sockets(self) -> int:
        """Returns how many sockets are in the table: alone or paired."""
        with maps.Map.pinned(
            Places.of(self.paths).map("sockets"), ctypes.c_uint64, ctypes.c_uint64
        ) as sockets:
            # A key that goes while the kernel looks for the next begins the walk anew.
            return len({key.value for key in islice(sockets.keys(), MOST_KEYS_WALKED)})

    def _make_slices(self, desired: Desired) -> list[str]:
        """Makes the named slices that are not there; returns which."""
        # Of several candidates nobody knows which one it will be.
        certain = [wish.candidates[0] for wish in desired.cgroups if len(wish.candidates) == 1]
        lasting = [path for path in certain if cgroups.is_lasting(path)]
        missing = [path for path in lasting if self.hierarchy.identify(path) is None]
        for path in missing:
            # One that the kernel refuses is left out like others that are not there.
            with contextlib.suppress(OSError):
                self.hierarchy.make(path)
        return [path for path in missing if self.hierarchy.identify(path) is not None]

    def _write_cgroup_mode(self, path: str, mode: Mode) -> None:
        loaded = observe_loaded(Places.of(self.paths), self.hierarchy, {})
        entries = loaded.attachments if loaded is not None else ()
        entry = next((entry for entry in entries if entry.path == path), None)
        if entry is None:
            raise InvalidInput(
                wanted=f"cgroup {path} among those sockops accelerates",
                found=", ".join(entry.path or "gone" for entry in entries) or "none",
                remedy="see `meshaccel status` for the names",
            )
        Handlers(self.paths, self.hierarchy).write_policy(
            {
                "policy": entry.policy,
                "cgroup_id": entry.cgroup_id,
                "mode": mode.value,
                "ports": [[ports.first, ports.last] for ports in entry.ports],
                "receive_memory_limit": entry.receive_memory_limit,
            }
        )


def total(rows: list[dict[str, int]]) -> dict[str, int]:
    """Adds counters up by name."""
    return {name: sum(row[name] for row in rows) for name in layout.COUNTER_NAMES}
