"""Tells, as JSON, the ends of connections with a host's port on this node, and what TCP carried at them."""

from __future__ import annotations

import json
import re
import subprocess
import sys


def main(host: str, port: str) -> None:
    """Ask ss, which leaves out a count of none."""
    chosen = f"dst {host} and ( sport = :{port} or dport = :{port} )"
    command = ["ss", "-tinHO", "state", "established", chosen]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    counts = re.findall(r"\bbytes_(?:sent|received):(\d+)", shown)
    print(json.dumps({"ends": len(shown.splitlines()), "by_tcp": sum(map(int, counts))}))


main(*sys.argv[1:])
