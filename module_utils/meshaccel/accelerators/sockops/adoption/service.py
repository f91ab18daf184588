# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Adoption as one call: look at the node's sockets, choose, adopt, report."""

from __future__ import annotations

from ....model import Mode
from ....paths import sibling_object
from ....system import cgroups
from ..inspection.reading import inspect, namespaces_of
from ..membership import memberships
from ..observe import Places, observe_loaded
from . import layout
from .plan import choose
from .run import Report, adopt

INSPECTION = "sockops_inspection"


def adopt_live_connections(object_path: str, places: Places, hierarchy: cgroups.Hierarchy) -> Report:
    """Takes over the live connections between sockets of opted-in cgroups.

    ``object_path`` is the accelerator's object; those of the inspection and of
    the adoption lie beside it. Takes some half a second, five at most. Raises
    Unsupported when the kernel takes one of them not.
    """
    loaded = observe_loaded(places, hierarchy, {})
    if loaded is None or not loaded.usable or loaded.mode is not Mode.ON:
        return Report(0, 0, {})
    namespaces = namespaces_of(loaded, hierarchy)
    sockets = inspect(places, sibling_object(object_path, INSPECTION), namespaces)
    attachments = memberships({each.cgroup_id for each in sockets}, loaded.attachments, hierarchy)
    candidates = choose(sockets, attachments)
    return adopt(sibling_object(object_path, layout.OBJECT_NAME), places, candidates, namespaces)
