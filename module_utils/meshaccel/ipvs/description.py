# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The state that is, and the one a plan leads to, in the same words: their difference is the diff.

Of thousands of services only those are described that differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model import Json
from .desired import Desired
from .entries import service_entry
from .model import VirtualService
from .observe import Observed
from .plan import Difference


def describe_observed(observed: Observed, difference: Difference) -> dict[str, Json]:
    """Returns what was observed of the services that a plan is about."""
    if observed.document is None and not difference.changing and not difference.going:
        return {"state": "absent"}
    return description([*(before for before, _ in difference.changing), *difference.going])


def describe(desired: Desired, difference: Difference) -> dict[str, Json]:
    """Returns what a plan makes of them."""
    if not desired.present:
        return {"state": "absent"}
    return description([*(after for _, after in difference.changing), *difference.coming])


def description(services: Iterable[VirtualService]) -> dict[str, Json]:
    """Returns services by the words of their keys."""
    return {"state": "present", "services": {str(service): service_entry(service) for service in services}}
