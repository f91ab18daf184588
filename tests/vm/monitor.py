"""QEMU's monitor (QMP, docs/interop/qmp-spec): what a guest is told through its emulator."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 120.0


class MonitorError(RuntimeError):
    """The emulator refused a command, or closed the monitor."""


class Monitor:
    """A connection to one guest's monitor."""

    def __init__(self, path: Path) -> None:
        """Connect; raises OSError when nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(SECONDS)
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("r", encoding="utf-8")
            self._read()
            self._execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def save(self, name: str) -> None:
        """Keep the whole state of the guest in its disk. Raises MonitorError."""
        said = str(self._execute("human-monitor-command", {"command-line": f"savevm {name}"}))
        if said:
            raise MonitorError(f"savevm: {said.strip()}")

    def end_at_reboot(self) -> None:
        """Have the emulator end when the guest reboots next. Raises MonitorError."""
        self._execute("set-action", {"reboot": "shutdown"})

    def quit(self) -> None:
        """End the emulator at once."""
        self._execute("quit")

    def _execute(self, command: str, arguments: dict[str, str] | None = None) -> object:
        request = {"execute": command, "arguments": arguments or {}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                raise MonitorError(f"{command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise MonitorError("the emulator closed its monitor")
        answer: dict[str, Any] = json.loads(line)
        return answer
