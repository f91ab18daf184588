"""The engine: order, undo in reverse, what it says when things fail, observing again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine
from meshaccel.errors import ApplyFailed, MeshaccelError
from meshaccel.model import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.engine import Handler
    from meshaccel.model import Json, Plan


@dataclass
class Journal:
    """Handlers that write down what they were asked; `errors` is what they raise, by name."""

    entries: list[str] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)

    def handlers(self) -> Mapping[str, Handler]:
        return {"do": self.note, "undo": self.note}

    def note(self, arguments: Mapping[str, Json]) -> None:
        name = arguments["name"]
        self.entries.append(name)
        if name in self.errors:
            raise self.errors[name]


def step(name: str) -> Action:
    """Return an action with an undo of two steps."""
    back = tuple(Action("undo", f"take back {word}", {"name": word}) for word in (f"-{name}", f"--{name}"))
    return Action("do", f"do {name}", {"name": name}, back)


PLAN: Plan = (step("1"), step("2"), step("3"))


def test_actions_are_carried_out_in_order() -> None:
    journal = Journal()
    engine.apply(PLAN, journal.handlers())
    assert journal.entries == ["1", "2", "3"]


def test_a_handler_gets_the_arguments_of_its_action() -> None:
    received: list[object] = []
    engine.apply((Action("do", "", {"mode": "off", "ports": [1, 2]}),), {"do": received.append})
    assert received == [{"mode": "off", "ports": [1, 2]}]


@pytest.mark.parametrize(
    "error", [OSError(5, "broken"), MeshaccelError(wanted="w", found="broken", remedy="r")], ids=["os", "own"]
)
def test_what_was_done_is_undone_in_reverse_beginning_with_the_failed_action(error: Exception) -> None:
    journal = Journal(errors={"2": error})
    with pytest.raises(ApplyFailed) as caught:
        engine.apply(PLAN, journal.handlers())
    assert journal.entries == ["1", "2", "-2", "--2", "-1", "--1"]
    assert caught.value.__cause__ is error


def test_a_failure_that_was_undone_says_what_failed_why_and_that_the_node_is_as_before() -> None:
    with pytest.raises(ApplyFailed) as caught:
        engine.apply(PLAN, Journal(errors={"2": OSError(5, "broken")}).handlers())
    error = caught.value
    assert (error.wanted, error.found, error.undo_errors) == ("do 2", "[Errno 5] broken", ())
    assert "undone" in error.remedy


def test_undoing_goes_on_after_an_error_and_reports_every_one() -> None:
    errors: dict[str, BaseException] = {name: OSError(5, name) for name in ("3", "-3", "--1")}
    journal = Journal(errors=errors)
    with pytest.raises(ApplyFailed) as caught:
        engine.apply(PLAN, journal.handlers())
    assert journal.entries[3:] == ["-3", "--3", "-2", "--2", "-1", "--1"]
    assert caught.value.undo_errors == ("take back -3: [Errno 5] -3", "take back --1: [Errno 5] --1")
    assert all(words in caught.value.remedy for words in caught.value.undo_errors)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("a defect")], ids=repr)
def test_an_interrupted_run_is_undone_and_the_interruption_goes_on(error: BaseException) -> None:
    journal = Journal(errors={"2": error})
    with pytest.raises(type(error)) as caught:
        engine.apply(PLAN, journal.handlers())
    assert caught.value is error
    assert journal.entries == ["1", "2", "-2", "--2", "-1", "--1"]


def test_the_hook_runs_before_each_action_and_not_before_its_undo() -> None:
    journal = Journal(errors={"2": OSError()})
    with pytest.raises(ApplyFailed):
        engine.apply(PLAN, journal.handlers(), lambda action: journal.entries.append(f"({action.summary})"))
    assert journal.entries == ["(do 1)", "1", "(do 2)", "2", "-2", "--2", "-1", "--1"]


def test_a_hook_that_fails_keeps_its_action_from_running() -> None:
    def refuse(action: Action) -> None:
        if action.summary == "do 2":
            raise OSError(5, "injected")

    journal = Journal()
    with pytest.raises(ApplyFailed):
        engine.apply(PLAN, journal.handlers(), refuse)
    assert journal.entries == ["1", "-1", "--1"]


@pytest.mark.parametrize("error", [OSError(5, "broken"), KeyboardInterrupt()], ids=repr)
def test_once_what_was_replaced_is_being_removed_nothing_is_undone(error: BaseException) -> None:
    plan = (PLAN[0], dataclasses.replace(PLAN[1], tidies=True), PLAN[2])
    for name, done in {"1": ["1", "-1", "--1"], "2": ["1", "2"], "3": ["1", "2", "3"]}.items():
        journal = Journal(errors={name: error})
        with pytest.raises((ApplyFailed, KeyboardInterrupt)) as caught:
            engine.apply(plan, journal.handlers())
        assert journal.entries == done
        if isinstance(caught.value, ApplyFailed):
            assert bool(caught.value.undo_errors) == (name != "1")


# ---- converge ----


@dataclass
class Counter:
    """A node that is a number; its plan is to count up to `wished`."""

    wished: int
    value: int = 0
    observations: int = 0
    fails_at_observation: BaseException | None = None

    def observe(self) -> int:
        self.observations += 1
        if self.observations == 2 and self.fails_at_observation is not None:
            raise self.fails_at_observation
        return self.value

    def plan(self, seen: int) -> Plan:
        back = Action("add", "count down", {"by": -1})
        return tuple(
            Action("add", f"count to {number}", {"by": 1}, (back,))
            for number in range(seen + 1, self.wished + 1)
        )

    def add(self, arguments: Mapping[str, Json]) -> None:
        self.value += arguments["by"]

    def converge(self, *, check_mode: bool = False) -> engine.Outcome[int]:
        return engine.converge(self.observe, self.plan, {"add": self.add}, check_mode=check_mode)


def test_converging_reports_what_it_found_did_and_reached() -> None:
    outcome = Counter(wished=2).converge()
    assert (outcome.before, outcome.after, outcome.changed) == (0, 2, True)
    assert [action.summary for action in outcome.actions] == ["count to 1", "count to 2"]


def test_nothing_to_do_changes_nothing_and_observes_once() -> None:
    counter = Counter(wished=2, value=2)
    outcome = counter.converge()
    assert (outcome.changed, outcome.before, outcome.after, counter.observations) == (False, 2, 2, 1)


def test_check_mode_returns_the_same_actions_and_carries_out_none() -> None:
    checked = Counter(wished=2)
    outcome = checked.converge(check_mode=True)
    assert (checked.value, outcome.changed, outcome.before, outcome.after) == (0, True, 0, 0)
    assert outcome.actions == Counter(wished=2).converge().actions


def test_a_node_that_still_differs_afterwards_is_put_back_and_the_error_says_what_is_left() -> None:
    counter = Counter(wished=0)

    def two_more_each_time(seen: int) -> Plan:
        return Counter(wished=seen + 2).plan(seen)

    with pytest.raises(ApplyFailed) as caught:
        engine.converge(counter.observe, two_more_each_time, {"add": counter.add})
    assert "still needs: count to 3; count to 4" in caught.value.found
    assert counter.value == 0


def test_a_second_observation_that_fails_puts_the_node_back() -> None:
    counter = Counter(wished=2, fails_at_observation=OSError(5, "cannot look"))
    with pytest.raises(ApplyFailed, match="cannot look"):
        counter.converge()
    assert counter.value == 0


def test_an_interruption_while_observing_again_puts_the_node_back() -> None:
    counter = Counter(wished=2, fails_at_observation=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        counter.converge()
    assert counter.value == 0


def test_an_observation_that_fails_before_anything_was_done_is_passed_on() -> None:
    def observe() -> int:
        raise MeshaccelError(wanted="to look", found="nothing", remedy="mend it")

    with pytest.raises(MeshaccelError, match="wanted to look"):
        engine.converge(observe, lambda _: (), {})
