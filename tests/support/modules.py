"""An Ansible module of the project, run in the test's own process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def run_module(name: str, *, check_mode: bool = False, **parameters: object) -> dict[str, Any]:
    """Run a module of `library/` as Ansible does and return its result.

    A failed one has `failed: true` and its message under `msg`.
    """
    arguments = {**parameters, "_ansible_check_mode": check_mode}
    output = io.StringIO()
    with (
        patch_module_args(arguments),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        load_module(name).main()
    result: dict[str, Any] = json.loads(output.getvalue())
    return result


def import_part(name: str) -> ModuleType:
    """Import a part of the package under the name it has for modules.

    Its classes are not those of `meshaccel.NAME`, which is another import of the same files.
    """
    packages = str(ROOT / "module_utils")
    if packages not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(packages)
    return importlib.import_module(f"ansible.module_utils.meshaccel.{name}")


@cache
def load_module(name: str) -> ModuleType:
    """Import a module of `library/` by its file, as Ansible does."""
    import_part("errors")
    specification = importlib.util.spec_from_file_location(name, ROOT / "library" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
