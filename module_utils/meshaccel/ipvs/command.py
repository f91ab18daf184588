# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The services of IPVS in the node's command."""

from __future__ import annotations

from collections.abc import Mapping

from .. import metrics
from ..engine import BeforeAction, Result
from ..model import Json
from ..paths import NodePaths
from . import NAME
from .service import Services

#: So many services are named in a line of status; as JSON it has all.
MOST_NAMED = 5


class Command:
    """The services of this node, as the command line uses them."""

    def __init__(self, paths: NodePaths) -> None:
        """Binds the command to an installation."""
        self._services = Services(paths)

    def status(self) -> dict[str, Json]:
        """Returns how many services are wished and there."""
        return self._services.status()

    def status_lines(self, status: Mapping[str, Json]) -> list[str]:
        """Returns a status for a reader."""
        listed, missing = status["services"], status["missing"]
        lines = [f"{NAME}  {listed - len(missing)} of {listed} services, {status['servers']} servers"]
        for words, names in (
            ("MISSING, run meshaccel restore", missing),
            ("without a server for new connections", status["without_servers"]),
            ("being removed", status["leaving"]),
        ):
            if names:
                more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
                lines.append(f"  {words}: {', '.join(names[:MOST_NAMED])}{more}")
        return lines

    def metrics(self, status: Mapping[str, Json]) -> str:
        """Returns a status as Prometheus text."""
        lines: list[str] = []
        counts = {
            "services": status["services"],
            "missing": len(status["missing"]),
            "without_servers": len(status["without_servers"]),
            "servers": status["servers"],
        }
        for name, value in counts.items():
            metrics.add(lines, f"meshaccel_{NAME}_{name}", "gauge", {"": value})
        return "\n".join(lines) + "\n"

    def restore(self, before_action: BeforeAction) -> Result:
        """Brings back the services kept on the node."""
        return self._services.restore(before_action=before_action)
