# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""From the wished table of denied networks to actions. Pure: nothing is read, nothing changed."""

from __future__ import annotations

from ....model import Action, Plan
from .networks import DeniedNetwork

Networks = tuple[DeniedNetwork, ...]


def denying(present: Networks, wished: Networks) -> Plan:
    """Writes the table, if it differs."""
    if present == wished:
        return ()
    return (deny(wished, (deny(present),)),)


def deny(networks: Networks, undo: Plan = ()) -> Action:
    """Builds the write of the whole table."""
    words = ", ".join(map(str, networks)) or "none"
    arguments = {"networks": [network.as_dict() for network in networks]}
    return Action("sockops.deny_networks", f"denied networks: {words}", arguments, undo)


def describe(networks: Networks) -> list[str]:
    """Returns the networks as the diff and the status show them."""
    return list(map(str, networks))
