"""The changes that a run can make to a node, one for each kind of plan."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel import record
from meshaccel.accelerators.sockops import NAME
from tests.kernel.installations import ABSENT
from tests.support.accelerator import OBJECT

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from meshaccel.engine import BeforeAction, Result
    from meshaccel.model import Action
    from tests.support.cgroups import TestCgroup

Members = Mapping[str, "TestCgroup"]
BOTH = ("client", "server")


@dataclass(frozen=True)
class Wish:
    """What a node should have. `cgroups` are the names that a test has for them."""

    cgroups: Sequence[str] = BOTH
    settings: Mapping[str, object] = field(default_factory=dict)
    present: bool = True
    #: Another version of the object is installed.
    updated: bool = False

    @property
    def joined(self) -> Sequence[str]:
        """The cgroups that have a program then."""
        return self.cgroups if self.present else ()

    def accelerates(self) -> bool:
        """Whether a new connection between the client's and the server's cgroup is accelerated."""
        reached = set(BOTH) <= set(self.cgroups) and not self.settings.get("ports")
        return self.present and reached and self.settings.get("mode", "on") == "on"

    def variables(self, members: Members) -> dict[str, object]:
        """Return it as role variables without their prefix."""
        if not self.present:
            return dict(ABSENT)
        paths = [members[name].relative_path for name in self.cgroups]
        return {"state": "present", "cgroups": paths, **self.settings}


NOTHING = Wish(present=False)


def as_it_is(_: Sockops) -> None:
    """Nothing happens to the node between two wishes."""


def lose_pins(node: Sockops) -> None:
    """What a reboot does to what is loaded."""
    shutil.rmtree(node.paths.pins)


@dataclass(frozen=True)
class Change:
    """From one wish to another; what happens to the node between, and how the other is asked for."""

    before: Wish
    after: Wish
    meanwhile: Callable[[Sockops], None] = as_it_is
    by_restore: bool = False


ON = Wish()
LEAVING = replace(ON, cgroups=(*BOTH, "third"))
JOINING = replace(ON, cgroups=(*BOTH, "fourth"))
OFF_FOR_ALL = replace(ON, settings={"mode": "off", "receive_memory_limit": 1_000_000})
OFF_FOR_SOME = replace(ON, settings={"mode": "off", "ports": [1, "3-9"]})
DRAINING = replace(ON, settings={"mode": "drain", "ports": ["1-65535"]})
SMALLER = replace(ON, settings={"maximum_connections": 100})
ADOPTING = replace(ON, settings={"adopt_existing": True})
DENYING = replace(
    ON, settings={"denied_networks": ["192.0.2.0/24", {"network": "2001:db8::1", "ports": [80]}]}
)
RELAYING = replace(ON, settings={"relays": [{"from": "127.0.0.1:1234", "to": "127.0.0.1:4321"}]})
CHANGES = {
    "first-converge": Change(NOTHING, ON),
    "join-and-leave": Change(LEAVING, JOINING),
    "an-end-leaves": Change(ON, replace(ON, cgroups=("server", "third"))),
    "switch-off": Change(ON, OFF_FOR_SOME),
    "switch-on": Change(OFF_FOR_ALL, ON),
    "drain": Change(ON, DRAINING),
    "adopt": Change(OFF_FOR_ALL, ADOPTING),
    "deny": Change(ON, DENYING),
    "relay": Change(ON, RELAYING),
    "relay-no-more": Change(RELAYING, LEAVING),
    "update": Change(RELAYING, replace(RELAYING, updated=True)),
    "resize": Change(ON, SMALLER),
    "removal": Change(ON, NOTHING),
    "restore": Change(ON, ON, lose_pins, by_restore=True),
}


@dataclass(frozen=True)
class Operator:
    """Asks one node for wishes, as the module and the command do: under the lock, and recorded."""

    node: Sockops
    members: Members
    #: Where the other version of the object is.
    updated_object: Path

    def ask(self, wish: Wish, before_action: BeforeAction | None = None) -> Result:
        """Converge to a wish."""
        node = replace(self.node, object_path=str(self.updated_object if wish.updated else OBJECT))
        desired = node.parse(wish.variables(self.members))
        return record.recorded(
            node.paths,
            NAME,
            lambda note: node.converge(desired, before_action=both(note, before_action)),
            keeps=wish.present,
        )

    def restore(self, before_action: BeforeAction | None = None) -> Result:
        """Bring back the wish that is kept on the node."""
        return record.recorded(
            self.node.paths,
            NAME,
            lambda note: self.node.restore(both(note, before_action)),
            keeps=True,
        )

    def change(self, change: Change, before_action: BeforeAction | None = None) -> Result:
        """Make the change itself; the node is as wished before it."""
        if change.by_restore:
            return self.restore(before_action)
        return self.ask(change.after, before_action)


def both(first: BeforeAction, second: BeforeAction | None) -> BeforeAction:
    """Return a hook that calls the product's own, then the test's."""

    def before_action(action: Action) -> None:
        first(action)
        if second is not None:
            second(action)

    return before_action
