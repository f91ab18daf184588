# The part of ansible.module_utils.basic that modules use; ansible-core ships no types.

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

class AnsibleModule:
    params: dict[str, Any]
    check_mode: bool
    _diff: bool
    tmpdir: str

    def __init__(
        self,
        argument_spec: Mapping[str, Mapping[str, Any]],
        *,
        mutually_exclusive: Sequence[Sequence[str]] | None = None,
        required_together: Sequence[Sequence[str]] | None = None,
        required_one_of: Sequence[Sequence[str]] | None = None,
        required_if: Sequence[Sequence[Any]] | None = None,
        required_by: Mapping[str, str | Sequence[str]] | None = None,
        supports_check_mode: bool = False,
    ) -> None: ...
    def exit_json(self, **kwargs: object) -> NoReturn: ...
    def fail_json(self, msg: str, **kwargs: object) -> NoReturn: ...
    def warn(self, warning: str) -> None: ...
