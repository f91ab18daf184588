"""The module bpf_map: how its options get to the package and how it ends, over a map made up here."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshaccel.bpf.entries import parse
from meshaccel.paths import NodePaths
from tests.support.modules import import_part, load_module, run_module

MODULE = "bpf_map"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, bool]]:
    """Have the module's converge only write down what it is asked for, and return that."""
    module, engine = load_module(MODULE), import_part("engine")
    calls: list[tuple[Any, bool]] = []

    def converge(entries: Any, _: object, *, check_mode: bool) -> Any:  # noqa: ANN401  stands in
        calls.append((entries.desired, check_mode))
        return engine.Result((), {"50 00": "01"}, {"50 00": "01"})

    monkeypatch.setattr(module, "converge", converge)
    return calls


@pytest.mark.parametrize("check_mode", [False, True])
def test_options_reach_the_package_and_its_result_the_operator(
    asked: list[tuple[Any, bool]], *, check_mode: bool
) -> None:
    entries = [{"key": 80, "value": "0a 0b"}]
    result = run_module(MODULE, check_mode=check_mode, pin="m", entries=entries, purge=True)

    ((desired, mode),) = asked
    assert mode is check_mode
    assert (desired.present, desired.pin, desired.purge) == (True, "m", True)
    assert desired.entries == ((80, "0a 0b"),)
    assert (result["changed"], result["actions"]) == (False, [])
    assert result["diff"]["before"] == result["diff"]["after"]


def test_an_error_is_told_in_its_three_parts(asked: list[tuple[Any, bool]]) -> None:
    result = run_module(MODULE, pin="m", entries=[{"key": "high", "value": 1}])
    assert (result["failed"], asked) == (True, [])
    assert "hexadecimal" in result["wanted"]
    assert "'high'" in result["found"]
    assert all(result[part] in result["msg"] for part in ("wanted", "found", "remedy"))


def test_the_pin_has_to_be_given(asked: list[tuple[Any, bool]]) -> None:
    assert "pin" in run_module(MODULE)["msg"]
    assert asked == []


def test_documentation_has_the_parameters_of_the_code() -> None:
    module = load_module(MODULE)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    keys = ("type", "elements", "choices", "default", "required")

    assert {name: [option.get(key) for key in keys] for name, option in documented.items()} == {
        name: [option.get(key) for key in keys] for name, option in module.ARGUMENTS.items()
    }
    assert yaml.safe_load(module.RETURN)


def test_the_examples_are_valid_wishes() -> None:
    module = load_module(MODULE)
    examples = yaml.safe_load(module.EXAMPLES)
    assert examples
    for example in examples:
        options = example[MODULE]
        assert options.keys() <= module.ARGUMENTS.keys()
        parse({"state": "present", "purge": False, **options}, NodePaths())
