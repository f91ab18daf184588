# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""sockops in the node's command."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping

from ... import metrics
from ...engine import BeforeAction, Result
from ...errors import InvalidInput
from ...lock import node_lock
from ...model import Json, Mode
from ...paths import NodePaths
from . import NAME
from .layout import SOCKETS_PER_CONNECTION
from .service import Sockops


class Command:
    """The accelerator on this node, as the command line uses it."""

    def __init__(self, paths: NodePaths) -> None:
        """Binds the command to an installation; raises Unsupported without cgroup2."""
        self._sockops = Sockops.on_this_node(paths)

    def status(self) -> dict[str, Json]:
        """Returns mode, cgroups, counters and table use."""
        return self._sockops.status()

    def status_lines(self, status: Mapping[str, Json]) -> list[str]:
        """Returns a status for a reader."""
        return status_lines(status)

    def metrics(self, status: Mapping[str, Json]) -> str:
        """Returns a status as Prometheus text."""
        return metrics.render(status)

    def restore(self, before_action: BeforeAction) -> Result:
        """Brings back the wish kept on the node."""
        return self._sockops.restore(before_action=before_action)

    def switch(self, mode: Mode, chosen: Namespace) -> None:
        """Switches and says so at once.

        After off, gives the connections back to TCP; after on, takes those that are
        open over if the desired state says so.
        """
        cgroup: str | None = chosen.cgroup
        self._sockops.switch_live(mode, cgroup)
        print(f"sockops {mode.value}" + (f" for {cgroup}" if cgroup else ""), flush=True)
        try:
            self._sockops.hold(mode, cgroup)
        finally:
            if mode is Mode.OFF:
                for note in self._sockops.release():
                    print(f"note: {note}")
        if mode is Mode.ON and self._sockops.adopts_existing():
            self.adopt()

    def adopt(self) -> None:
        """Takes over live connections and says what came of it."""
        with node_lock(self._sockops.paths, f"{NAME} adopt"):
            print(self._sockops.adopt())

    def explain(self, target: str | None, *, as_json: bool) -> None:
        """Prints why the connections of a process or port, or all (None), go the way they go.

        Raises InvalidInput when the target is no number, or nothing of it is there.
        """
        # Takes time to import, and the switches have to work at once.
        from .explanation import gathering, output

        sockops = self._sockops
        choice = gathering.Choice(None if target is None else process_or_port(target))
        found = gathering.explanations(sockops.paths, sockops.hierarchy, sockops.object_path, choice)
        if target is not None and not found:
            raise InvalidInput(
                wanted=f"TCP connections of process or port {target}",
                found="none that carries data",
                remedy="meshaccel explain --all shows those there are",
            )
        if as_json:
            print(json.dumps([output.as_json(each) for each in found], indent=2))
            return
        for line in output.lines(found):
            print(line)


def process_or_port(target: str) -> int:
    """Returns the number of a process or port; raises InvalidInput."""
    if not (target.isascii() and target.isdigit()):
        raise InvalidInput(
            wanted="the number of a process or a port",
            found=repr(target),
            remedy="for example: meshaccel explain 8080",
        )
    return int(target)


def status_lines(sockops: Mapping[str, Json]) -> list[str]:
    """Returns the status of sockops for a reader."""
    held = sockops["held"] or {"mode": None, "cgroups": {}}
    by_hand = "  (held by an operator; lift with: meshaccel on sockops)" if held["mode"] else ""
    lines = [
        f"sockops  {sockops['mode']}{by_hand}",
        f"  connections  {sockops['connections']} of {sockops['maximum_connections']}",
        f"  redirected   {share(sockops['counters'])}",
    ]
    if "error" in held:
        lines.append(f"  what is held cannot be read: {held['error']}")
    for path, entry in sockops["cgroups"].items():
        words = [f"  cgroup {path}", entry["mode"], share(entry["counters"])]
        if not entry["attached"]:
            words.append("NOT ATTACHED: run meshaccel restore")
        if path in held["cgroups"]:
            words.append(f"(held; lift with: meshaccel on sockops --cgroup {path})")
        lines.append("  ".join(words))
    handed_back = sockops["counters"]["sockets_handed_back"] // SOCKETS_PER_CONNECTION
    if handed_back:
        lines.append(f"  handed back to TCP, as streams of small writes  {handed_back} connections")
    reasons = {
        name: value
        for name, value in sockops["counters"].items()
        if value and name.startswith(("tcp_messages", "skipped"))
    }
    lines += [f"  {name}  {value}" for name, value in reasons.items()]
    for relay in sockops["relays"]:
        lines += relay_lines(relay)
    return lines


def relay_lines(relay: Json) -> list[str]:
    """Returns one relay's status for a reader."""
    counters, waiting = relay["counters"], relay["waiting"]
    moved = sum(counters["joined_bytes"].values())
    words = f"{relay['joined']} joined, {waiting['from']} and {waiting['to']} waiting, {moved} bytes"
    reasons = ("skipped", "acknowledgements", "packets")
    return [
        f"  relay {relay['from']} - {relay['to']}  {words}",
        *(f"    {name}  {value}" for name, value in counters.items() if value and name.startswith(reasons)),
    ]


def share(counters: dict[str, int]) -> str:
    """Returns the share of tracked bytes that went socket to socket."""
    redirected = counters["redirected_bytes"]
    everything = redirected + counters["tcp_bytes"]
    if not everything:
        return "no bytes yet"
    return f"{redirected / everything:.1%} of {everything} bytes"
