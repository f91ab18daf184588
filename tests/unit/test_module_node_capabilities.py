"""The module node_capabilities: its parameters and its result, over answers made up here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from meshaccel.capabilities import NAMES
from tests.support.modules import import_part, load_module, run_module

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "node_capabilities"


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes a node that answers yes to everything but the names given, each with a reason."""
    module, model = load_module(MODULE), import_part("model")

    def answering(**lacking: str) -> None:
        found = {name: model.Capability(name, model.Answer.YES) for name in NAMES}
        for name, reason in lacking.items():
            found[name] = model.Capability(name, model.Answer.NO, reason, "6.13")
        monkeypatch.setattr(module, "probe", lambda: found)

    answering()
    return answering


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("check_mode", [False, True])
def test_reports_every_capability_and_the_kernel_and_changes_nothing(check_mode: bool) -> None:
    result = run_module(MODULE, check_mode=check_mode)

    assert result["changed"] is False
    assert result["kernel"] == os.uname().release
    assert result["capabilities"]["map_sockhash"] == "yes"
    assert set(result["capabilities"]) == set(NAMES)


def test_a_lacking_capability_that_nobody_asks_for_is_no_failure(node: Callable[..., None]) -> None:
    node(map_sockhash="not this kernel")

    assert run_module(MODULE)["capabilities"]["map_sockhash"] == "no: not this kernel"


@pytest.mark.parametrize("asked", [{"accelerators": ["sockops"]}, {"require": ["map_sockhash"]}])
def test_fails_for_what_is_asked_for_and_still_tells_all(
    node: Callable[..., None], asked: dict[str, Any]
) -> None:
    node(map_sockhash="not this kernel")

    result = run_module(MODULE, **asked)

    assert result["failed"] is True
    assert "map_sockhash: no: not this kernel" in result["found"]
    assert "6.13" in result["remedy"]
    assert result["capabilities"]["map_sk_storage"] == "yes"


@pytest.mark.usefixtures("node")
def test_succeeds_when_all_that_is_asked_for_is_there() -> None:
    assert "failed" not in run_module(MODULE, accelerators=["sockops"], require=["sk_msg_rdonly_cast"])


def test_a_name_that_is_none_fails_before_the_node_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module(MODULE), "probe", lambda: pytest.fail("the node was asked"))

    result = run_module(MODULE, require=["map_sockhsh"])

    assert result["failed"] is True
    assert result["found"] == "map_sockhsh"
    assert "map_sockhash" in result["wanted"]


def test_an_accelerator_that_is_none_is_refused() -> None:
    assert "sockpos" in run_module(MODULE, accelerators=["sockpos"])["msg"]


def test_documentation_has_the_parameters_of_the_code() -> None:
    module = load_module(MODULE)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]

    assert {
        name: (option["type"], option.get("elements"), option.get("choices"), option.get("default"))
        for name, option in documented.items()
    } == {
        name: (option["type"], option.get("elements"), option.get("choices"), option.get("default"))
        for name, option in module.ARGUMENTS.items()
    }
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)
