# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What roles, modules and inventories say of themselves agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshaccel.accelerators.ipvs_bpf.desired import Desired, parse
from tests.support.modules import load_module

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = sorted((REPOSITORY / "roles").iterdir())
MODULES = sorted(path.stem for path in (REPOSITORY / "library").glob("*.py"))


def read_yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def options_of(role: Path) -> dict[str, dict[str, Any]]:
    specification = read_yaml(role / "meta/argument_specs.yml")
    options: dict[str, dict[str, Any]] = specification["argument_specs"]["main"]["options"]
    return options


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_s_defaults_are_those_of_its_argument_specification(role: Path) -> None:
    defaults = read_yaml(role / "defaults/main.yml")
    assert {name: option["default"] for name, option in options_of(role).items()} == defaults


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_s_variables_begin_with_its_name(role: Path) -> None:
    assert all(name.startswith(f"{role.name}_") for name in options_of(role))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_documents_exactly_its_options(name: str) -> None:
    module = load_module(name)
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert documented["module"] == name
    assert documented["attributes"]["check_mode"]["support"] == "full"
    options = documented.get("options", {})
    assert options.keys() == module.ARGUMENTS.keys()
    for option, argument in module.ARGUMENTS.items():
        for key in ("type", "default", "choices", "elements", "required"):
            assert options[option].get(key) == argument.get(key), (option, key)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_examples_and_return_values_that_parse(name: str) -> None:
    module = load_module(name)
    examples = yaml.safe_load(module.EXAMPLES)
    assert all(name in example or "ansible.builtin.assert" in example for example in examples)
    assert yaml.safe_load(module.RETURN)


def test_the_sockops_role_and_its_module_have_the_same_defaults() -> None:
    arguments = load_module("sockops").ARGUMENTS
    of_role = read_yaml(REPOSITORY / "roles/sockops/defaults/main.yml")
    shared = {name: of_role[f"sockops_{name}"] for name in arguments if f"sockops_{name}" in of_role}
    assert shared == {name: arguments[name]["default"] for name in shared}
    assert len(shared) == len(arguments) - 2, "all but the objects' digests, which the release gives"


def test_the_ipvs_bpf_role_its_module_and_its_parser_have_the_same_defaults() -> None:
    arguments = load_module("ipvs_bpf").ARGUMENTS
    of_role = read_yaml(REPOSITORY / "roles/ipvs_bpf/defaults/main.yml")
    of_module = {name: argument.get("default") for name, argument in arguments.items()}
    assert of_module.pop("object_digest") is None
    assert of_module == {name: of_role[f"ipvs_bpf_{name}"] for name in of_module}
    assert parse(of_module) == parse({}) == Desired()


def test_the_ipvs_service_role_and_its_module_have_the_same_defaults() -> None:
    of_module = {
        name: argument["default"] for name, argument in load_module("ipvs_service").ARGUMENTS.items()
    }
    of_role = read_yaml(REPOSITORY / "roles/ipvs_service/defaults/main.yml")
    assert of_module.pop("services") == []
    assert of_role["ipvs_service_list"] == "{{ ipvs_services | default([]) }}"
    assert of_module == {name: of_role[f"ipvs_service_{name}"] for name in of_module}


def test_every_variable_of_the_example_fleet_is_known_and_every_known_one_is_shown() -> None:
    known = {name for role in ROLES for name in options_of(role)} | {"ipvs_services"}
    shown: set[str] = set()
    for path in (REPOSITORY / "inventories/example-fleet").rglob("*_vars/*.yml"):
        shown |= {name for name in read_yaml(path) if not name.startswith("ansible_")}
    assert shown <= known
    of_operators = {name for name in known if name.startswith(("sockops_", "ipvs_"))}
    operators = of_operators - {"sockops_release", "ipvs_service_list", "ipvs_bpf_release"}
    assert shown >= operators
