# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Adoption as one call: look at the node's sockets, choose, adopt, report."""

from __future__ import annotations

from ....bpf.object_file import ObjectFile
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


def adopt_live_connections(running: ObjectFile, places: Places, hierarchy: cgroups.Hierarchy) -> Report:
    """Takes over the live connections between sockets of opted-in cgroups.

    ``running`` is the accelerator's object; those of the inspection and of the
    adoption lie beside it and are loaded in the same way. Takes some half a second, five at most. Raises
    Unsupported when the kernel takes one of them not.
    """
    loaded = observe_loaded(places, hierarchy, {})
    if loaded is None or not loaded.usable or loaded.mode is not Mode.ON:
        return Report(0, 0, {})
    namespaces = namespaces_of(loaded, hierarchy)
    sockets = inspect(places, sibling_object(running.path, INSPECTION), running.loader, namespaces)
    attachments = memberships({each.cgroup_id for each in sockets}, loaded.attachments, hierarchy)
    candidates = choose(sockets, attachments)
    adoption = sibling_object(running.path, layout.OBJECT_NAME)
    return adopt(adoption, running.loader, places, candidates, namespaces)
