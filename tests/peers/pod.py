"""The place of a test's programs: one network namespace, a cgroup for each, and sockops over all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.namespaces import NetworkNamespace
from tests.support.processes import Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshaccel.accelerators.sockops.service import Sockops


@dataclass(frozen=True)
class Pod:
    """A namespace whose loopback all connections of a test go over."""

    node: Sockops
    namespace: NetworkNamespace
    cgroups: Mapping[str, TestCgroup]
    settings: Mapping[str, object]

    def place(self, role: str, *, user_id: int | None = None) -> Placement:
        """Return where the programs of a role run."""
        return Placement(self.namespace, self.cgroups[role], user_id)

    @contextlib.contextmanager
    def changed(self, **settings: object) -> Iterator[None]:
        """Apply other settings meanwhile, role variables without their prefix."""
        self._converge({**self.settings, **settings})
        try:
            yield
        finally:
            self._converge(self.settings)

    def _converge(self, settings: Mapping[str, object]) -> None:
        paths = [cgroup.relative_path for cgroup in self.cgroups.values()]
        self.node.converge(self.node.parse({"state": "present", "cgroups": paths, **settings}))


@contextlib.contextmanager
def accelerated_pod(label: str, *roles: str, **settings: object) -> Iterator[Pod]:
    """Make a pod with a cgroup for each role, such as `client` and `server`; see `accelerated`."""
    with contextlib.ExitStack() as resources:
        namespace = resources.enter_context(NetworkNamespace(label))
        cgroups = {role: resources.enter_context(TestCgroup(role)) for role in roles}
        paths = [cgroup.relative_path for cgroup in cgroups.values()]
        node = resources.enter_context(accelerated(paths, **settings))
        yield Pod(node, namespace, cgroups, settings)
