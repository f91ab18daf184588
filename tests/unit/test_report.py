"""How modules tell their result: every part of it reaches the operator, and diffs compare line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from meshaccel import report
from meshaccel.engine import Result
from meshaccel.errors import ApplyFailed, MeshaccelError
from meshaccel.model import Action, Json, Plan

ACTIONS: Plan = (
    Action("file.write", "write a file", {"text": "long"}, (Action("file.remove", "remove a file"),)),
    Action("sockops.set_mode", "switch sockops on"),
)


@dataclass
class Module:
    """An AnsibleModule that keeps what it was told; as the real one, it ends with the result."""

    warnings: list[str] = field(default_factory=list)
    results: dict[str, Json] = field(default_factory=dict)

    def exit_json(self, **results: Json) -> NoReturn:
        self.results = results
        raise SystemExit(0)

    def fail_json(self, msg: str, **results: Json) -> NoReturn:
        self.results = {"msg": msg, **results}
        raise SystemExit(1)

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


def succeeded(result: Result, **more: Json) -> Module:
    """Return the module that a success has ended."""
    module = Module()
    with pytest.raises(SystemExit) as caught:
        report.succeed(module, result, **more)
    assert caught.value.code == 0
    return module


def failed(error: MeshaccelError | OSError) -> dict[str, Json]:
    """Return what a failed module says."""
    module = Module()
    with pytest.raises(SystemExit) as caught, report.telling_errors(module):
        raise error
    assert caught.value.code == 1
    return module.results


def test_a_change_is_told_with_its_actions_in_order_without_their_way_back() -> None:
    told = succeeded(Result(ACTIONS, {"mode": "off"}, {"mode": "on"}), mode="on").results
    assert told == {
        "changed": True,
        "actions": [
            {"kind": "file.write", "summary": "write a file"},
            {"kind": "sockops.set_mode", "summary": "switch sockops on"},
        ],
        "diff": {"before": '{\n  "mode": "off"\n}\n', "after": '{\n  "mode": "on"\n}\n'},
        "mode": "on",
    }


def test_nothing_to_do_is_no_change_and_an_empty_diff() -> None:
    told = succeeded(Result((), {"mode": "on"}, {"mode": "on"})).results
    assert (told["changed"], told["actions"]) == (False, [])
    assert told["diff"]["before"] == told["diff"]["after"]


def test_every_note_becomes_a_warning() -> None:
    assert succeeded(Result(ACTIONS, {}, {}, ("first", "second"))).warnings == ["first", "second"]


def test_what_is_told_can_be_sent_as_json() -> None:
    told = succeeded(Result(ACTIONS, {"ports": ["80-90"]}, {}), cgroups={"a": {"mode": "on"}}).results
    assert json.loads(json.dumps(told)) == told


def test_an_error_of_ours_is_told_in_its_parts() -> None:
    error = ApplyFailed(wanted="a file", found="a directory", remedy="remove it", undo_errors=())
    assert failed(error) == {
        "msg": "wanted a file; found a directory; remove it",
        "wanted": "a file",
        "found": "a directory",
        "remedy": "remove it",
    }


def test_an_error_of_the_system_is_told_in_its_words() -> None:
    assert failed(PermissionError(13, "not permitted", "/etc/meshaccel")) == {
        "msg": "[Errno 13] not permitted: '/etc/meshaccel'"
    }


def test_a_defect_of_ours_is_no_message_but_a_traceback() -> None:
    module = Module()
    with pytest.raises(ValueError, match="a defect"), report.telling_errors(module):
        raise ValueError("a defect")
    assert module.results == {}


def test_a_diff_does_not_depend_on_the_order_of_observation() -> None:
    description = {"b": 1, "a": {"d": [2, 1], "c": None}}
    shuffled = {"a": {"c": None, "d": [2, 1]}, "b": 1}
    told = report.difference(description, shuffled)
    assert told["before"] == told["after"]
    assert json.loads(told["before"]) == description
    assert report.text({"d": [2, 1]}) != report.text({"d": [1, 2]})
