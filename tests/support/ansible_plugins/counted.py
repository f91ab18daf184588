# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Connection plugin: the local one, counting what would cross the wire.

Appends one JSON line for each exchange to the file named by COUNTED_EXCHANGES:
``module`` tells whether a module was sent, ``bytes`` is both ways together.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: counted
short_description: the local connection, counted
description:
  - Runs on the controller and counts exchanges and bytes.
author: meshaccel contributors
extends_documentation_fragment:
  - connection_pipelining
options:
  become_success_timeout:
    description: As in the local connection.
    default: 10
    type: int
    vars:
      - name: ansible_local_become_success_timeout
  become_strip_preamble:
    description: As in the local connection.
    default: true
    type: bool
    vars:
      - name: ansible_local_become_strip_preamble
"""


class Connection(LocalConnection):
    """The local connection with a ledger."""

    transport = "counted"

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Runs a command and notes it."""
        result: tuple[int, bytes, bytes] = super().exec_command(cmd, in_data, sudoable)
        sent = len(cmd) + len(in_data or b"")
        note(module=in_data is not None, size=sent + len(result[1]) + len(result[2]))
        return result

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copies a file and notes it."""
        super().put_file(in_path, out_path)
        note(module=False, size=Path(in_path).stat().st_size)


def note(*, module: bool, size: int) -> None:
    """Appends one exchange to the ledger."""
    exchange = {"module": module, "bytes": size}
    with Path(os.environ["COUNTED_EXCHANGES"]).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(exchange) + "\n")
