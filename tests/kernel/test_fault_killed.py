"""A run that ends at any of its steps: the node works, and the next run finishes or undoes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from meshaccel import record
from meshaccel.accelerators.sockops import NAME
from tests.kernel.fault_calls import Watched, changing_calls
from tests.kernel.fault_changes import CHANGES, NOTHING, Change, Operator, Wish
from tests.kernel.fault_process import INTERRUPTED, LOOK_AGAIN, SUCCEEDED, Ending, signal_at
from tests.kernel.fault_stage import Case, Stage, new_operator, new_stage, prepared, told
from tests.kernel.fault_state import FILES, ROUNDS, Seen
from tests.kernel.inventory import assert_untouched
from tests.kernel.observation import Counted
from tests.support.connections import connected
from tests.support.system_calls import SystemCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.engine import Result

pytestmark = pytest.mark.machine
EVERY_CHANGE = pytest.mark.parametrize("name", sorted(CHANGES))
#: They have all actions with more than one effect between them.
LONG_CHANGES = pytest.mark.parametrize(
    "name", ["first-converge", "join-and-leave", "update", "removal", "relay-no-more"]
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """What all nodes of this file share."""
    with new_stage(tmp_path_factory.mktemp("updated")) as made:
        yield made


@dataclass(frozen=True)
class Remedy:
    """What an operator may do after a run that did not end well, and what it leads to."""

    ask: Callable[[Case], Result]
    wish: Callable[[Change], Wish]


#: From here on a run has no way back: the removal of what it replaced, the look at the node after it.
LAST = ("sockops.discard_programs", LOOK_AGAIN)

FINISH = Remedy(lambda case: case.operator.change(case.change), lambda change: change.after)
GO_BACK = Remedy(lambda case: case.operator.ask(case.change.before), lambda change: change.before)
REMOVE = Remedy(lambda case: case.operator.ask(NOTHING), lambda _: NOTHING)
REMEDIES = (FINISH, GO_BACK, REMOVE)


def check_remedy(case: Case, remedy: Remedy) -> None:
    """It leads in one run to what was asked for, and no byte is lost meanwhile."""
    node, stage = case.operator.node, case.stage
    with case.live.unread():
        remedy.ask(case)
        assert not remedy.ask(case).changed
    wish, seen = remedy.wish(case.change), case.look()
    assert record.read(node.paths).get(NAME, {}).get("phase") == ("done" if wish.present else None)
    assert set(seen.files) <= FILES
    assert seen.joined == set(wish.joined)
    assert sum(map(len, seen.attached.values())) == len(seen.of_kind("links"))
    if wish.accelerates():
        topology = stage.topology
        with connected(topology.client, topology.server, topology.address4) as connection:
            counted = Counted(node)
            assert connection.exchange(ROUNDS) == counted["redirected_bytes"]
    if not wish.present:
        assert_untouched(node, stage.ends)


@EVERY_CHANGE
def test_killed_before_any_step(stage: Stage, name: str) -> None:
    """The steps are the actions, and the look at the node after them. Each time another remedy comes next."""
    change, remedies = CHANGES[name], itertools.cycle(REMEDIES)
    number = 0
    with new_operator(stage) as operator:
        while True:
            with prepared(change, stage, operator) as case:
                ending = case.run(at_step=signal_at(number, signal.SIGKILL))
                if not ending.killed:
                    break
                with told(ending.place):
                    case.look()
                    check_remedy(case, next(remedies))
            number += 1
    assert ending.exit_code == SUCCEEDED
    assert number == len(ending.steps) > 1


# Some hundred runs.
@pytest.mark.timeout(400)
@LONG_CHANGES
def test_killed_within_any_action(stage: Stage, name: str) -> None:
    """Instead of any system call that changes something; each time another remedy comes next."""
    change, remedies = CHANGES[name], itertools.cycle(REMEDIES)
    with new_operator(stage) as operator:
        for call in calls_of(change, stage, operator):
            with prepared(change, stage, operator) as case:
                ending = case.run(beside=Watched(call.is_the_last()).beside)
                with told(f"{ending.place}, at {call}"):
                    assert ending.killed
                    case.look()
                    check_remedy(case, next(remedies))


@EVERY_CHANGE
def test_interrupted_before_any_step(stage: Stage, name: str) -> None:
    """Ctrl-C: the node is as it was before, unless what was before is gone for good."""
    change = CHANGES[name]
    number = 0
    with new_operator(stage) as operator:
        while True:
            with prepared(change, stage, operator) as case:
                before = case.look()
                ending = case.run(at_step=signal_at(number, signal.SIGINT))
                if ending.exit_code == SUCCEEDED:
                    break
                check_undone(case, before, ending)
            number += 1
    assert number == len(ending.steps) > 1


@LONG_CHANGES
def test_interrupted_within_any_action(stage: Stage, name: str) -> None:
    """Ctrl-C at any system call that changes something: what was half done is undone as well."""
    change = CHANGES[name]
    with new_operator(stage) as operator:
        for call in calls_of(change, stage, operator):
            with prepared(change, stage, operator) as case:
                before = case.look()
                ending = case.run(beside=Watched(call.is_interrupted()).beside)
                with told(f"at {call}"):
                    check_undone(case, before, ending, complete=ending.has_begun(LAST))


def calls_of(change: Change, stage: Stage, operator: Operator) -> list[SystemCall]:
    """Return the system calls by which a change changes something; there have to be some."""
    with prepared(change, stage, operator) as case:
        watched = Watched()
        assert case.run(beside=watched.beside).exit_code == SUCCEEDED
    calls = changing_calls(watched)
    assert calls
    return calls


def check_undone(case: Case, before: Seen, ending: Ending, *, complete: bool = False) -> None:
    """What was done before the interruption was taken back, unless it was all there is to do."""
    with told(ending.place):
        assert ending.exit_code == INTERRUPTED
        after = case.look()
        if complete or ending.has_done(LAST):
            check_remedy(case, FINISH)
        else:
            assert after.words() == before.words()
