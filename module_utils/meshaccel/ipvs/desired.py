# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes of the node's services: parsed and validated, nothing touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..checks import Variables, choice, reject_unknown
from ..model import Json
from .entries import parse_services
from .model import VirtualService

PREFIX = "ipvs_service_"
KEYS = frozenset({"state", "services", "purge", "drain_seconds"})
DEFAULT_DRAIN_SECONDS = 5
LARGEST_DRAIN_SECONDS = 3600


@dataclass(frozen=True)
class Desired:
    """The wish. ``purge``: services that are not in the list go too, whoever made them."""

    present: bool
    services: tuple[VirtualService, ...] = ()
    purge: bool = False
    #: The longest wait for connections to servers that leave; 0: they leave at once.
    drain_seconds: int = DEFAULT_DRAIN_SECONDS


def parse(raw: Mapping[str, Json]) -> Desired:
    """Parses ``state``, ``services``, ``purge`` and ``drain_seconds``.

    Raises InvalidInput; of services it tells everything that is wrong at once.
    """
    reject_unknown(raw, KEYS, "ipvs_service")
    variables = Variables(raw, PREFIX)
    return Desired(
        present=choice(raw, "state", ("present", "absent"), "present") == "present",
        services=parse_services(variables.listed("services")),
        purge=variables.boolean("purge"),
        drain_seconds=variables.number("drain_seconds", DEFAULT_DRAIN_SECONDS, 0, LARGEST_DRAIN_SECONDS),
    )
