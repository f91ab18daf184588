# ansible.module_utils.testing, for the tests of the modules; ansible-core ships no types.

from contextlib import AbstractContextManager
from typing import Any

def patch_module_args(args: dict[str, Any] | None = None) -> AbstractContextManager[None]: ...
