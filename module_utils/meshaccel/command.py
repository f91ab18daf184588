# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's own command, for the engineer who is logged in."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import ipvs, metrics, record, restoration
from .accelerators.sockops import NAME as SOCKOPS
from .accelerators.sockops.layout import SOCKETS_PER_CONNECTION
from .accelerators.sockops.service import Sockops
from .errors import InvalidInput, MeshaccelError
from .lock import node_lock
from .model import Json, Mode
from .paths import NodePaths

EPILOG = """examples:
  meshaccel off sockops                      all traffic back to the kernel, at once
  meshaccel off sockops --cgroup envoy.slice one cgroup only
  meshaccel on sockops                       lift what off or drain held
  meshaccel adopt sockops                    connections that are open already, too
  meshaccel explain 8080                     the way of each connection of a port, and why
  meshaccel status --json                    everything, for scripts
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    chosen = parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("meshaccel: run as root; only root may read and switch BPF", file=sys.stderr)
        return 1
    try:
        return run(chosen, Sockops.on_this_node(NodePaths()))
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
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="what is accelerated, and how much")
    status.add_argument("--json", action="store_true", help="as JSON")
    explain = commands.add_parser("explain", help="why connections are accelerated or not")
    chosen = explain.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "target", nargs="?", metavar="PID|PORT", help="a process or a port; a number that is both means both"
    )
    chosen.add_argument("--all", action="store_true", help="every connection of the node")
    explain.add_argument("--json", action="store_true", help="as JSON")
    for mode, words in (
        (Mode.ON, "accelerate; lifts what off or drain held"),
        (Mode.OFF, "everything to the kernel's path, at once; held until on"),
        (Mode.DRAIN, "accelerate nothing new; held until on"),
    ):
        switch = commands.add_parser(mode.value, help=words)
        switch.add_argument("accelerator", choices=(SOCKOPS,))
        switch.add_argument("--cgroup", help="only this cgroup, as status names it")
    adopt = commands.add_parser("adopt", help="take over connections that are open already")
    adopt.add_argument("accelerator", choices=(SOCKOPS,))
    commands.add_parser("restore", help="bring back the desired state kept on this node")
    commands.add_parser("metrics", help="Prometheus text")
    return top


def run(chosen: argparse.Namespace, sockops: Sockops) -> int:
    """Carries out a parsed command line."""
    if chosen.command == "status":
        show_status(sockops, as_json=chosen.json)
    elif chosen.command == "explain":
        show_explanations(sockops, chosen.target, as_json=chosen.json)
    elif chosen.command == "metrics":
        sys.stdout.write(metrics.render(sockops.status()))
    elif chosen.command == "restore":
        restoration.restore(sockops)
    elif chosen.command == "adopt":
        adopt(sockops)
    else:
        switch(sockops, Mode(chosen.command), chosen.cgroup)
    return 0


def switch(sockops: Sockops, mode: Mode, cgroup: str | None) -> None:
    """Switches and says so at once.

    After off, gives the connections back to TCP; after on, takes those that are
    open over if the desired state says so.
    """
    sockops.switch_live(mode, cgroup)
    print(f"sockops {mode.value}" + (f" for {cgroup}" if cgroup else ""), flush=True)
    try:
        sockops.hold(mode, cgroup)
    finally:
        if mode is Mode.OFF:
            for note in sockops.release():
                print(f"note: {note}")
    if mode is Mode.ON and sockops.adopts_existing():
        adopt(sockops)


def adopt(sockops: Sockops) -> None:
    """Takes over live connections and says what came of it."""
    with node_lock(sockops.paths, f"{SOCKOPS} adopt"):
        print(sockops.adopt())


def show_status(sockops: Sockops, *, as_json: bool) -> None:
    """Prints the node's status."""
    of_services: list[str] = []
    status = {SOCKOPS: sockops.status(), "last_run": record.read(sockops.paths)}
    if restoration.services_kept(sockops.paths):
        # Takes time to import, and the switches have to work at once.
        from .ipvs.service import Services
        from .ipvs.service import status_lines as lines_of_services

        status[ipvs.NAME] = Services(sockops.paths).status()
        of_services = lines_of_services(status[ipvs.NAME])
    if as_json:
        print(json.dumps(status, indent=2, sort_keys=True))
        return
    for line in [*status_lines(status[SOCKOPS]), *of_services, *unfinished_lines(status["last_run"])]:
        print(line)


def show_explanations(sockops: Sockops, target: str | None, *, as_json: bool) -> None:
    """Prints why the connections of a process or port, or all (None), go the way they go.

    Raises InvalidInput when the target is no number, or nothing of it is there.
    """
    # Takes time to import, and the switches have to work at once.
    from .accelerators.sockops.explanation import gathering, output

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


def status_lines(sockops: Json) -> list[str]:
    """Returns the status of sockops for a reader."""
    if sockops["state"] != "present":
        return [f"sockops  {sockops['state']}"]
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
