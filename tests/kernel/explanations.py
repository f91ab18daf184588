"""`meshaccel explain`, run here over a test's own sockops."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshaccel import command
from meshaccel.accelerators.sockops.service import Sockops

if TYPE_CHECKING:
    import pytest

    from meshaccel.model import Json
    from tests.support.connections import Connection


@dataclass(frozen=True)
class Explainer:
    """Runs the command over one sockops."""

    node: Sockops
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def call(self, *arguments: str) -> str:
        """Run `meshaccel` with these arguments, which has to succeed, and return its output."""
        self.monkeypatch.setattr(Sockops, "on_this_node", lambda _: self.node)
        self.monkeypatch.setattr(command, "NodePaths", lambda: self.node.paths)
        code = command.main(list(arguments))
        output, errors = self.capsys.readouterr()
        assert (code, errors) == (0, "")
        return output

    def found(self, target: object) -> list[dict[str, Json]]:
        """Return what is said, as JSON, of the connections of a process or port."""
        found: list[dict[str, Json]] = json.loads(self.call("explain", str(target), "--json"))
        return found

    def explained(self, connection: Connection) -> dict[str, Json]:
        """Return what is said of one connection; its text has to say the same as its JSON."""
        local, port = connection.client.socket.getsockname()[:2]
        here = [each for each in self.found(port) if ends_at(each, f"{local}:{port}")]
        assert len(here) == 1, here
        lines = self.call("explain", str(port)).splitlines()
        way = "redirected" if here[0]["redirected"] else "by TCP"
        assert f"  {way}: {here[0]['sentence']}" in lines
        return here[0]

    def cause(self, connection: Connection) -> str:
        """Return the cause that is given for the way of a connection."""
        return str(self.explained(connection)["cause"])


def ends_at(explained: dict[str, Json], address: str) -> bool:
    """Whether one end of an explained connection has this address."""
    return any(end["local"] == address for end in explained["ends"].values())
