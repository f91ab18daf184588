"""The module bpf_program: its options and how it ends, over a node made up here."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshaccel.bpf.program.desired import Desired, parse
from meshaccel.bpf.program.loading import Source
from meshaccel.errors import InvalidInput
from tests.support.modules import import_part, load_module, run_module
from tests.unit.simulated_programs import PATHS, RAW

MODULE = "bpf_program"


# ---- options ----


def test_options_become_a_wish() -> None:
    options = {
        "cgroups": ["a"],
        "maximum_entries": {"ports": 5},
        "constants": {"step": 0},
        "reuse_maps": {"counts": f"{PATHS.pins}/other_maps/counts"},
        "pin_maps": False,
    }
    source = Source("/o", "p", {"ports": 5}, {"step": 0})
    reuse = {"counts": "other_maps/counts"}
    assert parse({**RAW, **options}, PATHS) == Desired(True, "count", source, ("a",), reuse, pin_maps=False)
    assert parse({"state": "absent", "pin": "count"}, PATHS) == Desired(present=False, pin="count")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"pin": "../count"}, "outside"),
        ({"pin": "sockops"}, "'sockops'"),
        ({"pin": "sockops/maps/control"}, "'sockops/maps/control'"),
        ({"pin": "staged"}, "'staged'"),
        ({"object": "count.bpf.o"}, "object 'count.bpf.o'"),
        ({"object": None}, "object ''"),
        ({"program": None}, "program ''"),
        ({"maximum_entries": {"ports": 0}}, "0"),
        ({"maximum_entries": {"ports": 1 << 32}}, str(1 << 32)),
        ({"maximum_entries": {"ports": "8"}}, "'8'"),
        ({"maximum_entries": {"ports": True}}, "True"),
        ({"constants": {"step": -1}}, "-1"),
        ({"constants": {"step": 1 << 64}}, str(1 << 64)),
        ({"constants": {"step": 0.5}}, "0.5"),
        ({"reuse_maps": {"ports": "../ports"}}, "outside"),
        ({"reuse_maps": {"ports": "count_maps/ports"}}, "its own"),
        ({"reuse_maps": {"ports": "a"}, "maximum_entries": {"ports": 1}}, "reuse_maps names too"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse({**RAW, **options}, PATHS)
    assert found in raised.value.found


# ---- the module ----


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, bool]]:
    """Have the module's converge only write down what it is asked for, and return that."""
    module, engine, model = load_module(MODULE), import_part("engine"), import_part("model")
    calls: list[tuple[Any, bool]] = []

    def converge(program: Any, _: object, *, check_mode: bool) -> Any:  # noqa: ANN401  stands in
        calls.append((program.desired, check_mode))
        actions = (model.Action("bpf_program.load", "load p of /o"),)
        return engine.Result(actions, {"state": "absent"}, {"state": "present"}, ("a note",))

    monkeypatch.setattr(module, "converge", converge)
    return calls


@pytest.mark.parametrize("check_mode", [False, True])
def test_options_reach_the_package_and_its_result_the_operator(
    asked: list[tuple[Any, bool]], *, check_mode: bool
) -> None:
    parameters = {"pin": "count", "object": "/o", "program": "p", "cgroups": ["a"], "constants": {"x": 1}}
    result = run_module(MODULE, check_mode=check_mode, **parameters)

    ((desired, mode),) = asked
    assert mode is check_mode
    assert (desired.present, desired.pin, desired.cgroups, desired.pin_maps) == (True, "count", ("a",), True)
    assert desired.source.constants == {"x": 1}
    assert result["changed"] is True
    assert result["actions"] == [{"kind": "bpf_program.load", "summary": "load p of /o"}]
    assert '"absent"' in result["diff"]["before"]
    assert '"present"' in result["diff"]["after"]
    assert "a note" in str(result["warnings"])


def test_an_error_is_told_in_its_three_parts(asked: list[tuple[Any, bool]]) -> None:
    result = run_module(MODULE, pin="../count", state="absent")
    assert (result["failed"], asked) == (True, [])
    assert "below" in result["wanted"]
    assert "outside" in result["found"]
    assert "relative" in result["remedy"]
    assert all(result[part] in result["msg"] for part in ("wanted", "found", "remedy"))


def test_an_error_of_the_system_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def converge(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(load_module(MODULE), "converge", converge)
    result = run_module(MODULE, pin="count", state="absent")
    assert result["failed"] is True
    assert "Operation not permitted" in result["msg"]


@pytest.mark.parametrize("missing", ["pin", "object", "program"])
def test_what_is_needed_has_to_be_given(asked: list[tuple[Any, bool]], missing: str) -> None:
    parameters: dict[str, Any] = {"pin": "count", "object": "/o", "program": "p"}
    del parameters[missing]
    result = run_module(MODULE, **parameters)
    assert (result["failed"], asked) == (True, [])
    assert missing in result["msg"]


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
        parse({"state": "present", **options}, PATHS)
