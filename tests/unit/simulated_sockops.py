"""A node of sockops without a kernel: what the handlers do, and what can then be observed.

Traffic never rests: in every pause sockets are tracked wherever they can be.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.denials.networks import DeniedNetwork, parse_network
from meshaccel.accelerators.sockops.denials.observe import Denied
from meshaccel.accelerators.sockops.observe import Attachment, Loaded, Observed
from meshaccel.model import Mode
from meshaccel.ports import PortRange
from tests.unit.simulated_accelerator import SimulatedAccelerator, Steps, Versions, Work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from meshaccel.accelerators.sockops.desired import Desired
    from meshaccel.model import Json


@dataclass(frozen=True)
class KernelPolicy:
    """One entry of the policies map."""

    cgroup_id: int
    mode: Mode
    ports: tuple[PortRange, ...]
    receive_memory_limit: int


@dataclass(frozen=True)
class Link:
    """A program at work at a cgroup."""

    cgroup_id: int
    digest: str


@dataclass
class Pins(Versions):
    """What is pinned. `tracked` are the policies whose cgroups have sockets in the socket map."""

    mode: Mode
    maximum_connections: int
    same_layout: bool = True
    policies: dict[int, KernelPolicy] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    assignments: dict[int, int] = field(default_factory=dict)
    tracked: set[int] = field(default_factory=set)
    denied_networks: tuple[DeniedNetwork, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether this version of the package can read and write the maps."""
        return self.complete and self.same_layout


@dataclass
class SimulatedNode(SimulatedAccelerator[Pins]):
    """The whole state of a node."""

    cgroups: dict[str, int]
    denied: Denied = field(default_factory=Denied)

    def copy(self) -> Self:
        """Return a node of its own in the same state."""
        return replace(super().copy(), cgroups=dict(self.cgroups))

    # ---- what can be seen ----

    def observe(self, desired: Desired, document_path: str) -> Observed:
        """Return what a look at this node for this wish says."""
        candidates = {path for wish in desired.cgroups for path in wish.candidates}
        return Observed(
            bpffs=self.bpffs,
            loaded=self._loaded() if self.bpffs.mounted else None,
            object_file=self.object_file,
            document=self.files.get(document_path),
            cgroup_ids={path: found for path, found in self.cgroups.items() if path in candidates},
            hold=self.hold,
            denied=self._denied() if desired.present else Denied(),
        )

    def _denied(self) -> Denied:
        """What is denied here; a process is gone with its cgroup."""
        alive = [
            found for found in self.denied.processes if self.cgroups.get(found.cgroup) == found.cgroup_id
        ]
        return replace(self.denied, processes=tuple(alive))

    def _loaded(self) -> Loaded | None:
        pins = self.pins
        if pins is None:
            return None
        if not pins.complete:
            return Loaded(complete=False)
        readable = sorted(pins.policies.items()) if pins.same_layout else []
        return Loaded(
            complete=True,
            digest=pins.digest,
            mode=pins.mode,
            maximum_connections=pins.maximum_connections,
            same_layout=pins.same_layout,
            attachments=tuple(self._attachment(pins, index, policy) for index, policy in readable),
            stale_versions=tuple(sorted(pins.versions - {pins.digest})),
            denied_networks=pins.denied_networks if pins.same_layout else (),
        )

    def _attachment(self, pins: Pins, index: int, policy: KernelPolicy) -> Attachment:
        path = next((name for name, found in self.cgroups.items() if found == policy.cgroup_id), None)
        running = path is not None and pins.links.get(index) == Link(policy.cgroup_id, pins.digest)
        return Attachment(
            policy=index,
            cgroup_id=policy.cgroup_id,
            path=path,
            mode=policy.mode,
            ports=policy.ports,
            receive_memory_limit=policy.receive_memory_limit,
            attached=running and pins.assignments.get(policy.cgroup_id) == index,
        )

    # ---- carrying out ----

    def work_by_kind(self) -> Mapping[str, Work]:
        """Return what carries out an action, step by step, by its kind."""
        return {
            **super().work_by_kind(),
            "sockops.load": self._load,
            "sockops.unload": self._unload,
            "sockops.load_programs": self._load_programs,
            "sockops.switch_programs": self._switch_programs,
            "sockops.discard_programs": self._discard_programs,
            "sockops.set_mode": self._set_mode,
            "sockops.write_policy": self._write_policy,
            "sockops.clear_policy": self._clear_policy,
            "sockops.deny_networks": self._deny_networks,
            "sockops.attach": self._attach,
            "sockops.detach": self._detach,
            "sockops.release": self._release,
            "sockops.adopt": self._adopt,
            "sockops.hold": self._hold,
            "sockops.cannot_reload": self._cannot_reload,
        }

    def carry_traffic(self) -> None:
        """Track sockets wherever they can be tracked at this moment."""
        pins = self.pins
        if pins is None or not pins.usable or pins.mode is not Mode.ON:
            return
        alive = set(self.cgroups.values())
        for index, link in pins.links.items():
            policy = pins.policies.get(index)
            if link.cgroup_id in alive and policy is not None and policy.mode is Mode.ON:
                pins.tracked.add(index)

    # ---- versions ----

    def _load(self, arguments: Mapping[str, Json]) -> Steps:
        return self._pin(Pins(arguments["digest"], Mode.OFF, arguments["maximum_connections"]))

    def _unload(self, _: Mapping[str, Json]) -> Steps:
        if self.pins is None:
            return
        if self.pins.usable and self.pins.tracked:
            self.violations.append("unloaded with sockets not released")
        self.pins.links.clear()
        yield
        self.pins.versions.clear()
        yield
        self.pins = None
        yield

    def _switch_programs(self, arguments: Mapping[str, Json]) -> Steps:
        digest = arguments["digest"]
        pins = self._require_programs(digest)
        for index, link in pins.links.items():
            pins.links[index] = Link(link.cgroup_id, digest)
            yield
        pins.digest = digest
        yield

    # ---- modes and policies ----

    def _set_mode(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_pins().mode = Mode(arguments["mode"])
        yield

    def _write_policy(self, arguments: Mapping[str, Json]) -> Steps:
        policies, index = self._require_pins().policies, arguments["policy"]
        if not layout.UNCONFIGURED_POLICY < index < layout.POLICIES:
            self.violations.append(f"policy {index} handed out")
        if index in policies and policies[index].cgroup_id != arguments["cgroup_id"]:
            self.violations.append(f"policy {index} taken from the cgroup that has it")
        policies[index] = KernelPolicy(
            arguments["cgroup_id"],
            Mode(arguments["mode"]),
            tuple(PortRange(first, last) for first, last in arguments["ports"]),
            arguments["receive_memory_limit"],
        )
        yield

    def _clear_policy(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_pins().policies.pop(arguments["policy"], None)
        yield

    def _deny_networks(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_pins().denied_networks = tuple(map(parse_network, arguments["networks"]))
        yield

    # ---- cgroups ----

    def _attach(self, arguments: Mapping[str, Json]) -> Steps:
        pins, index, identifier = self._require_pins(), arguments["policy"], arguments["cgroup_id"]
        if self.cgroups.get(arguments["path"]) != identifier:
            raise FileNotFoundError(errno.ENOENT, f"no cgroup {arguments['path']}")
        if index not in pins.policies or pins.policies[index].cgroup_id != identifier:
            self.violations.append(f"cgroup {identifier} attached before its policy was written")
        if pins.assignments.get(identifier, 0) not in {layout.UNCONFIGURED_POLICY, index}:
            self.violations.append(f"cgroup {identifier} attached to a policy it had before")
        pins.links[index] = Link(identifier, pins.digest)
        yield
        pins.assignments[identifier] = index
        yield

    def _detach(self, arguments: Mapping[str, Json]) -> Steps:
        pins, index = self._require_pins(), arguments["policy"]
        if index in pins.tracked:
            self.violations.append(f"policy {index} detached with sockets not released")
        if arguments["cgroup_id"] in pins.assignments:
            pins.assignments[arguments["cgroup_id"]] = layout.UNCONFIGURED_POLICY
        yield
        pins.links.pop(index, None)
        yield
        pins.policies.pop(index, None)
        yield

    def _adopt(self, _: Mapping[str, Json]) -> Steps:
        if self._require_pins().mode is not Mode.ON:
            self.violations.append("connections adopted while sockops is not on")
        yield

    def _release(self, _: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        if pins.mode is Mode.OFF:
            pins.tracked.clear()
        off = {index for index, policy in pins.policies.items() if policy.mode is Mode.OFF}
        pins.tracked &= pins.policies.keys() - off
        yield
