# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""IPVS's kernel settings from before ours: kept in a file from the first run on, given back last. Pure."""

from __future__ import annotations

import json
import os

from ... import file_actions
from ...errors import InvalidInput
from ...model import Plan
from ...paths import NodePaths
from . import kernel_settings, tencent
from .desired import Desired
from .state import Observed


def settings_before(paths: NodePaths) -> str:
    """Returns the file with the values from before ours."""
    return os.path.join(paths.configuration, "ipvs_bpf_settings_before.json")


def changing(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Sets what is wished for this kernel, and keeps what was there before.

    Without ip_vs there are no settings; native leaves that as it is. Raises
    Unsupported for a setting that the kernel does not have.
    """
    if not observed.ipvs_loaded:
        return ()
    values = kernel_settings.wished(
        kernel_settings.kernel_version(), observed.settings.values, dict(desired.kernel_settings)
    )
    if desired.bpf and observed.tencent.mode is not None:
        values = {**values, **{name: tencent.SETTINGS[name] for name in tencent.SETTINGS if name in values}}
    before = load(observed.settings_before, settings_before(paths))
    kept = kernel_settings.to_keep(values, observed.settings, before)
    text = (json.dumps({**before, **kept}, indent=2, sort_keys=True) + "\n").encode()
    return (
        *file_actions.written(settings_before(paths), text, observed.settings_before),
        *kernel_settings.make_plan(values, observed.settings, before),
    )


def giving_back(observed: Observed, paths: NodePaths) -> Plan:
    """Gives back the values from before ours, and forgets them."""
    path = settings_before(paths)
    return (
        *kernel_settings.make_plan(None, observed.settings, load(observed.settings_before, path)),
        *file_actions.removed(path, observed.settings_before),
    )


def load(content: bytes | None, path: str) -> dict[str, str]:
    """Returns the values from before ours; raises InvalidInput when the file is damaged."""
    try:
        found = json.loads(content) if content is not None else {}
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise InvalidInput(
            wanted=f"the kernel settings from before ours in {path}",
            found=f"a file that was damaged or edited by hand ({error!r})",
            remedy="remove it: what was set before is then not given back",
        ) from error
