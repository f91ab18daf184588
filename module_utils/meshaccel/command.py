# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's own command, for the engineer who is logged in."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import record
from .accelerators import commands
from .errors import InvalidInput, MeshaccelError, Unsupported
from .model import Json, Mode
from .paths import NodePaths

EPILOG = """examples:
  meshaccel off sockops                      all traffic back to the kernel, at once
  meshaccel off sockops --cgroup envoy.slice one cgroup only
  meshaccel on sockops                       lift what off or drain held
  meshaccel adopt sockops                    connections that are open already, too
  meshaccel explain 8080                     the way of each connection of a port, and why
  meshaccel explain --service 10.96.0.10:53  why IPVS's service is in BPF or native
  meshaccel off ipvs_bpf                     all flows back to conntrack, at once
  meshaccel drain ipvs_bpf                   the same, but what is open may end first
  meshaccel status --json                    everything, for scripts
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    chosen = parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("meshaccel: run as root; only root may read and switch BPF", file=sys.stderr)
        return 1
    try:
        return run(chosen, NodePaths())
    except (MeshaccelError, OSError) as error:
        print(f"meshaccel: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    top = argparse.ArgumentParser(
        prog="meshaccel",
        description="Accelerators of this service-mesh node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = subparsers.add_parser("status", help="what is accelerated, and how much")
    status.add_argument("--json", action="store_true", help="as JSON")
    explain = subparsers.add_parser("explain", help="why connections are accelerated or not")
    chosen = explain.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "target", nargs="?", metavar="PID|PORT", help="a process or a port; a number that is both means both"
    )
    chosen.add_argument("--all", action="store_true", help="every connection of the node")
    chosen.add_argument(
        "--service", metavar="ADDRESS:PORT", help="a service of IPVS; ADDRESS:PORT/udp for one of UDP"
    )
    explain.add_argument("--json", action="store_true", help="as JSON")
    for mode, words in (
        (Mode.ON, "accelerate; lifts what off or drain held"),
        (Mode.OFF, "everything to the kernel's path, at once; held until on"),
        (Mode.DRAIN, "accelerate nothing new; held until on"),
    ):
        switch = subparsers.add_parser(mode.value, help=words)
        switch.add_argument("accelerator", choices=tuple(commands.TABLE))
        switch.add_argument("--cgroup", help="only this cgroup of sockops, as status names it")
    adopt = subparsers.add_parser("adopt", help="take over connections that are open already")
    adopt.add_argument("accelerator", choices=("sockops",))
    follow = subparsers.add_parser("follow", help="converge when devices or services change")
    follow.add_argument("accelerator", choices=("ipvs_bpf",))
    follow.add_argument("--once", action="store_true", help="converge to the kept wish once, and end")
    follow.add_argument("--tend", action="store_true", help="with --once: also end flows that are over")
    subparsers.add_parser("restore", help="bring back the desired state kept on this node")
    subparsers.add_parser("metrics", help="Prometheus text")
    return top


def run(chosen: argparse.Namespace, paths: NodePaths) -> int:
    """Carries out a parsed command line; returns its exit code."""
    if chosen.command == "status":
        show_status(paths, as_json=chosen.json)
    elif chosen.command == "explain":
        explain(chosen, paths)
    elif chosen.command == "metrics":
        show_metrics(paths)
    elif chosen.command == "restore":
        return restore(paths)
    elif chosen.command == "adopt":
        from .accelerators.sockops.command import Command

        Command(paths).adopt()
    elif chosen.command == "follow":
        return follow(chosen, paths)
    else:
        commands.TABLE[chosen.accelerator](paths).switch(Mode(chosen.command), chosen)
    return 0


def explain(chosen: argparse.Namespace, paths: NodePaths) -> None:
    """Explains connections, which are sockops' concern, or a service, which is ipvs_bpf's."""
    if chosen.service is None:
        from .accelerators.sockops.command import Command as Sockops

        Sockops(paths).explain(chosen.target, as_json=chosen.json)
    else:
        from .accelerators.ipvs_bpf.command import Command as IpvsBpf

        IpvsBpf(paths).explain(chosen.service, as_json=chosen.json)


def follow(chosen: argparse.Namespace, paths: NodePaths) -> int:
    """Follows devices and services until it is ended, or converges once."""
    if chosen.once:
        from .accelerators.ipvs_bpf.command import Command

        return Command(paths).follow_once(tend=chosen.tend)
    # Lives as long as the node: it imports only what waits.
    from .accelerators.ipvs_bpf.follow import follow as follow_changes

    return follow_changes(paths)


# ---- all accelerators ----


def show_status(paths: NodePaths, *, as_json: bool) -> None:
    """Prints the node's status."""
    found = {name: status_of(name, paths) for name in commands.TABLE}
    last_run = record.read(paths)
    if as_json:
        print(json.dumps({**found, "last_run": last_run}, indent=2, sort_keys=True))
        return
    for name, status in found.items():
        print("\n".join(status_lines(name, status, paths)))
    for line in unfinished_lines(last_run):
        print(line)


def status_of(name: str, paths: NodePaths) -> dict[str, Json]:
    """Returns an accelerator's status; what a node cannot have keeps nothing else from being shown."""
    try:
        return commands.TABLE[name](paths).status()
    except Unsupported as error:
        return {"state": "unsupported", "error": str(error)}


def status_lines(name: str, status: dict[str, Json], paths: NodePaths) -> list[str]:
    """Returns an accelerator's status for a reader; one that does not work takes a line."""
    if status["state"] != "present":
        return [": ".join([f"{name}  {status['state']}", *([status["error"]] if "error" in status else [])])]
    return commands.TABLE[name](paths).status_lines(status)


def show_metrics(paths: NodePaths) -> None:
    """Prints the metrics of what is there."""
    for name, accelerator in commands.TABLE.items():
        status = status_of(name, paths)
        if status["state"] == "present":
            sys.stdout.write(accelerator(paths).metrics(status))


def restore(paths: NodePaths) -> int:
    """Brings back every wish that is kept; one that fails keeps no other back. Returns the exit code."""
    wished = [name for name in commands.TABLE if os.path.exists(paths.desired(name))]
    if not wished:
        raise InvalidInput(
            wanted=f"a desired state in {paths.configuration}",
            found="no such file",
            remedy="run the playbook first; there is nothing to restore",
        )
    failed = 0
    for name in wished:
        try:
            restore_one(name, paths)
        except (MeshaccelError, OSError) as error:
            print(f"meshaccel: {error}", file=sys.stderr)
            failed = 1
    return failed


def restore_one(name: str, paths: NodePaths) -> None:
    """Brings back one accelerator's wish and says what was done."""
    accelerator = commands.TABLE[name](paths)
    result = record.recorded(paths, name, accelerator.restore, keeps=True, unattended=True)
    for action in result.actions:
        print(action.summary)
    for note in result.notes:
        print(f"note: {note}")
    if not result.changed and not result.notes:
        print(f"{name}: nothing to restore, all is as wished")


def unfinished_lines(last_run: dict[str, Json]) -> list[str]:
    """Returns which parts of the node the last run did not bring to their state, and why."""
    lines: list[str] = []
    for name, entry in last_run.items():
        if entry.get("phase") == record.DONE:
            continue
        how = "FAILED" if entry.get("phase") == record.FAILED else "WAS INTERRUPTED"
        lines.append(f"{name}  LAST RUN {how}, {entry.get('time')}; once mended: meshaccel restore")
        lines += [f"  {line}" for line in str(entry.get("error", "")).splitlines()]
    return lines
