# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""ipvs_bpf in the node's command."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping

from ... import lock, record
from ...engine import BeforeAction, Result
from ...errors import InvalidInput
from ...model import Json, Mode
from ...paths import NodePaths
from . import NAME
from .follow import BUSY
from .service import IpvsBpf


class Command:
    """The accelerator on this node, as the command line uses it."""

    def __init__(self, paths: NodePaths) -> None:
        """Binds the command to an installation."""
        self._node = IpvsBpf.on_this_node(paths)

    def status(self) -> dict[str, Json]:
        """Returns mode, sessions, port use, services and every reason for conntrack."""
        from .status import status

        return status(self._node)

    def status_lines(self, status: Mapping[str, Json]) -> list[str]:
        """Returns a status for a reader."""
        from .status import status_lines

        return status_lines(status)

    def metrics(self, status: Mapping[str, Json]) -> str:
        """Returns a status as Prometheus text."""
        from .metrics import render

        return render(status)

    def restore(self, before_action: BeforeAction) -> Result:
        """Brings back the wish kept on the node."""
        return self._node.restore(before_action=before_action)

    def switch(self, mode: Mode, chosen: Namespace) -> None:
        """Switches and says what that does to what is open.

        Off and drain are one map write. On goes through observation like any other
        way to it, or flows that conntrack has would be torn from it.
        """
        if chosen.cgroup is not None:
            raise InvalidInput(
                wanted=f"ipvs_bpf switched {mode.value} for the node",
                found="--cgroup, while services are of no cgroup",
                remedy="leave it out",
            )
        if mode is Mode.ON:
            self._switch_on()
            return
        ended = self._node.switch_live(mode)
        print(f"ipvs_bpf {mode.value}", flush=True)
        self._node.hold(mode)
        if mode is Mode.OFF:
            print(f"masqueraded sessions that end: {ended}; all others go on by conntrack")

    def explain(self, service: str, *, as_json: bool) -> None:
        """Prints which way a service's flows go, and why."""
        from .explanation import explain, lines

        explained = explain(self._node, service)
        print(json.dumps(explained, indent=2) if as_json else "\n".join(lines(explained)))

    def follow_once(self, *, tend: bool) -> int:
        """Converges to the kept wish unless another run holds the node; returns the exit code."""
        paths = self._node.paths
        if not os.path.exists(paths.desired(NAME)):
            return 0
        if lock.is_held(paths.lock):
            return BUSY
        result = self._restored()
        # A run that changes nothing has nothing new to say, each minute.
        if result.changed:
            print(*(action.summary for action in result.actions), *result.notes, sep="\n")
        if tend:
            with lock.node_lock(paths, f"{NAME} tend"):
                for words in self._node.tend():
                    print(words)
        return 0

    def _switch_on(self) -> None:
        if not self._node.kept_wish().bpf:
            raise InvalidInput(
                wanted="ipvs_bpf_mode bpf, to switch ipvs_bpf on",
                found="the wish kept on this node, which is native",
                remedy="change the inventory and run the playbook",
            )
        self._node.hold(Mode.ON)
        print("ipvs_bpf on: it takes some seconds to learn which flows conntrack has", flush=True)
        for note in self._restored().notes:
            print(f"note: {note}", file=sys.stderr)

    def _restored(self) -> Result:
        return record.recorded(self._node.paths, NAME, self.restore, keeps=True, unattended=True)
