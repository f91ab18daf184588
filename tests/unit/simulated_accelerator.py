"""What simulated nodes of every accelerator have: handlers that work step by step, versions, pins and files.

Each handler is a generator that yields after every step of its work, so that a test can make any action fail
before it begins, between any two of its steps, and after the last, or have the run killed there. Handlers
keep the contract of the real ones: work that is already done, or half done, is accepted.
"""

from __future__ import annotations

import copy
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from meshaccel.bpf.ownership import Bpffs
from meshaccel.errors import MeshaccelError
from meshaccel.holds import Hold

if TYPE_CHECKING:
    from typing import Self

    from meshaccel.bpf.object_file import ObjectFile
    from meshaccel.engine import Handler
    from meshaccel.model import Json

Steps = Iterator[None]
Work = Callable[[Mapping[str, "Json"]], Steps]


class Killed(BaseException):
    """The process is ended; nothing is undone."""


@dataclass
class Versions:
    """What of the programs is pinned: their maps, and the versions that were loaded, of which one runs."""

    digest: str
    all_maps: bool = field(default=True, kw_only=True)
    versions: set[str] = field(default_factory=set, kw_only=True)

    @property
    def complete(self) -> bool:
        return self.all_maps and self.digest in self.versions


AnyVersions = TypeVar("AnyVersions", bound=Versions)


@dataclass(kw_only=True)
class SimulatedPrograms(ABC, Generic[AnyVersions]):
    """Programs that are loaded, replaced and discarded.

    The run fails once, after `fails_after` steps of work, or is killed after `killed_after`.
    """

    object_file: ObjectFile | None = None
    pins: AnyVersions | None = None
    fails_after: int | None = None
    killed_after: int | None = None

    @abstractmethod
    def work_by_kind(self) -> Mapping[str, Work]:
        """Return what carries out an action, step by step, by its kind."""

    def carry_traffic(self) -> None:
        """Do what traffic does to the node in a pause between two steps."""

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by kind of action."""
        return {kind: self._step_by_step(work) for kind, work in self.work_by_kind().items()}

    def _step_by_step(self, work: Work) -> Handler:
        def handler(arguments: Mapping[str, Json]) -> None:
            self._between_steps()
            for _ in work(arguments):
                self._between_steps()

        return handler

    def _between_steps(self) -> None:
        self.carry_traffic()
        if self.killed_after is not None:
            self.killed_after -= 1
            if self.killed_after < 0:
                raise Killed
        if self.fails_after is None:
            return
        if self.fails_after == 0:
            self.fails_after = None
            raise OSError(errno.EIO, "injected")
        self.fails_after -= 1

    def _require_pins(self) -> AnyVersions:
        if self.pins is None or not self.pins.all_maps:
            raise FileNotFoundError(errno.ENOENT, "no such pin")
        return self.pins

    def _require_object(self, digest: str) -> None:
        if self.object_file is None or self.object_file.digest != digest:
            raise FileNotFoundError(errno.ENOENT, f"object {digest} is not installed")

    def _pin(self, pins: AnyVersions) -> Steps:
        """Pin the maps of a version, then its programs."""
        self._require_object(pins.digest)
        pins.all_maps = False
        self.pins = pins
        yield
        pins.all_maps = True
        yield
        pins.versions.add(pins.digest)
        yield

    def _load_programs(self, arguments: Mapping[str, Json]) -> Steps:
        self._require_object(arguments["digest"])
        yield
        self._require_pins().versions.add(arguments["digest"])
        yield

    def _require_programs(self, digest: str) -> AnyVersions:
        pins = self._require_pins()
        if digest not in pins.versions:
            raise FileNotFoundError(errno.ENOENT, f"programs {digest} are not pinned")
        return pins

    def _discard_programs(self, arguments: Mapping[str, Json]) -> Steps:
        pins = self._require_pins()
        if pins.digest != arguments["digest"]:
            pins.versions.discard(arguments["digest"])
        yield

    def _cannot_reload(self, arguments: Mapping[str, Json]) -> NoReturn:
        raise MeshaccelError(wanted="what was loaded", found=arguments["reason"], remedy="run again")


@dataclass(kw_only=True)
class SimulatedAccelerator(SimulatedPrograms[AnyVersions]):
    """An accelerator of a node; `violations` says which rule an action broke, in words."""

    bpffs: Bpffs = field(default_factory=lambda: Bpffs(mounted=False))
    files: dict[str, bytes] = field(default_factory=dict)
    hold: Hold = field(default_factory=Hold)
    violations: list[str] = field(default_factory=list)

    def copy(self) -> Self:
        """Return a node of its own in the same state."""
        return replace(
            self,
            pins=copy.deepcopy(self.pins),
            files=dict(self.files),
            violations=list(self.violations),
        )

    def work_by_kind(self) -> Mapping[str, Work]:
        """Return what carries out the actions that all accelerators have."""
        return {
            "bpffs.mount": self._mount,
            "bpffs.unmount": self._unmount,
            "file.write": self._write_file,
            "file.remove": self._remove_file,
        }

    def _require_pins(self) -> AnyVersions:
        if not self.bpffs.mounted:
            raise FileNotFoundError(errno.ENOENT, "no bpffs")
        return super()._require_pins()

    def _pin(self, pins: AnyVersions) -> Steps:
        if not self.bpffs.mounted:
            raise FileNotFoundError(errno.ENOENT, "no bpffs")
        yield from super()._pin(pins)

    def _mount(self, _: Mapping[str, Json]) -> Steps:
        if not self.bpffs.mounted:
            self.bpffs = Bpffs(mounted=True, ours=True)
        yield

    def _unmount(self, _: Mapping[str, Json]) -> Steps:
        if self.pins is not None:
            self.violations.append("bpffs unmounted with pins in it")
        if self.bpffs.ours:
            self.bpffs = Bpffs(mounted=False)
        yield

    def _write_file(self, arguments: Mapping[str, Json]) -> Steps:
        self.files[arguments["path"]] = arguments["text"].encode(errors="surrogateescape")
        yield

    def _remove_file(self, arguments: Mapping[str, Json]) -> Steps:
        self.files.pop(arguments["path"], None)
        yield

    def _hold(self, arguments: Mapping[str, Json]) -> Steps:
        self.hold = Hold.given(arguments)
        yield
