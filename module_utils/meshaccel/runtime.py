# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""node_runtime: the package, the command and the boot unit on a node."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from . import file_actions, release, unit_actions
from .bpf import libbpf
from .errors import InvalidInput, Unsupported
from .model import Action, Json, Plan
from .paths import NodePaths
from .system import files, systemd
from .unit_actions import Unit

NAME = "node_runtime"
UNIT_NAME = "meshaccel-restore.service"
EXECUTABLE = 0o755
#: What runs services and sidecars: their connections begin after the accelerators are back.
STARTED_AFTER = (
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "containerd.service",
    "crio.service",
    "docker.service",
    "podman-restart.service",
    "nomad.service",
    "consul.service",
    "istio.service",
    "envoy.service",
    "haproxy.service",
    "nginx.service",
    "redis-server.service",
)
#: systemd.unit(5): names of units, also of an instance.
UNIT_NAMES = re.compile(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.(service|socket|target|slice|scope|mount)"
)
#: One that hangs must not keep the node from starting: it is ended, and undone, after so long. Where the
#: loader is bcc, a slow node compiles for minutes.
UNIT = """# Written by meshaccel.
[Unit]
Description=Bring back the accelerators of meshaccel
Documentation=man:bpf(2)
After=local-fs.target sys-fs-bpf.mount
Before={started_after}
ConditionPathExists={configuration}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=600
ExecStart={command} restore

[Install]
WantedBy=multi-user.target
"""
COMMAND = """#!{python} -I
# Written by meshaccel.
import sys

sys.path.insert(0, "{release}")
from meshaccel.command import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Desired:
    """The wish. ``archive`` may be empty where only the difference is asked for."""

    present: bool
    digest: str = ""
    archive: str = ""
    #: Units that start after the accelerators are back, beside the known ones.
    started_after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What is installed; unit is None without systemd."""

    digest: str | None
    selected: str | None
    releases: tuple[str, ...]
    command: bytes | None
    systemd: bool
    unit: Unit | None
    command_executable: bool = True
    #: What lies in the configuration directory; None when there is none.
    configuration: tuple[str, ...] | None = None


def parse(raw: Mapping[str, Json]) -> Desired:
    """Parses ``state``, ``digest``, ``archive`` and ``started_after``; raises InvalidInput."""
    state, digest = raw.get("state") or "present", str(raw.get("digest") or "")
    if state not in ("present", "absent"):
        raise InvalidInput(wanted="state present or absent", found=repr(state), remedy="correct it")
    if state == "present" and not digest:
        raise InvalidInput(
            wanted="the digest of the node release",
            found="none",
            remedy="build the release on the controller: ./run node-release",
        )
    return Desired(
        state == "present", digest, str(raw.get("archive") or ""), parse_units(raw.get("started_after") or [])
    )


def parse_units(raw: Json) -> tuple[str, ...]:
    """Parses a list of names of systemd units; raises InvalidInput."""
    units = raw if isinstance(raw, list) else [raw]
    for unit in units:
        if not (isinstance(unit, str) and UNIT_NAMES.fullmatch(unit)):
            raise InvalidInput(
                wanted="names of systemd units that start after the accelerators are back",
                found=repr(unit),
                remedy="write each with its type, for example envoy.service",
            )
    return tuple(units)


def observe(paths: NodePaths) -> Observed:
    """Reads what is installed."""
    with_systemd = systemd.running()
    return Observed(
        digest=release.installed_digest(paths.release),
        selected=release.selected(paths.library),
        releases=release.names(paths.library),
        command=files.read(paths.command),
        systemd=with_systemd,
        unit=Unit.observe(paths, UNIT_NAME) if with_systemd else None,
        command_executable=os.access(paths.command, os.X_OK),
        configuration=list_configuration(paths),
    )


def list_configuration(paths: NodePaths) -> tuple[str, ...] | None:
    """Returns what lies in the configuration directory, or None without one."""
    try:
        return tuple(sorted(os.listdir(paths.configuration)))
    except FileNotFoundError:
        return None


def make_plan(desired: Desired, observed: Observed, paths: NodePaths) -> Plan:
    """Returns the actions that install or remove the runtime. Pure."""
    if not desired.present:
        return removal(observed, paths)
    plan: list[Action] = []
    if observed.digest != desired.digest:
        back = (
            Action("release.select", "select the previous release", {"name": observed.selected}),
            Action("release.prune", "remove the unused release", {"previous": []}),
        )
        plan.append(
            Action(
                "release.install",
                f"install the node release {desired.digest[:16]}",
                {"digest": desired.digest, "archive": desired.archive},
                back,
            )
        )
    command = observed.command if observed.command_executable else None
    plan += file_actions.written(paths.command, command_text(paths), command, EXECUTABLE)
    if observed.unit is not None:
        plan += unit_actions.installed(observed.unit, unit_text(paths, desired.started_after))
    if observed.digest != desired.digest:
        kept = [observed.selected] if observed.selected else []
        plan.append(Action("release.prune", "remove older node releases", {"previous": kept}))
    return tuple(plan)


def removal(observed: Observed, paths: NodePaths) -> Plan:
    """Takes the runtime off the node; accelerators were removed before."""
    plan: list[Action] = []
    if observed.unit is not None:
        plan += unit_actions.removed(observed.unit)
    plan += file_actions.removed(paths.command, observed.command, EXECUTABLE)
    if observed.releases or observed.selected:
        lost = Action("release.cannot_restore", "install the release before")
        plan.append(Action("release.remove_all", f"remove {paths.library}", {}, (lost,)))
    record = os.path.basename(paths.record)
    if observed.configuration is not None and set(observed.configuration) <= {record}:
        plan.append(Action("configuration.remove", f"remove {paths.configuration}"))
    return tuple(plan)


def has_libbpf() -> bool:
    """True when libbpf can be loaded."""
    try:
        libbpf.open_library()
    except Unsupported:
        return False
    return True


def describe(desired: Desired, observed: Observed) -> dict[str, Json]:
    """Returns the state a plan leads to, in the words of describe_observed()."""
    if not desired.present:
        return {"state": "absent"}
    return {
        "state": "present",
        "release": desired.digest[:16],
        "command": True,
        "boot_unit": observed.systemd,
    }


def describe_observed(observed: Observed) -> dict[str, Json]:
    """Returns what was observed, for the diff."""
    has_unit = observed.unit is not None and observed.unit.text is not None
    if observed.digest is None and observed.command is None and not has_unit:
        return {"state": "absent"}
    return {
        "state": "present",
        "release": observed.digest[:16] if observed.digest else None,
        "command": observed.command is not None,
        "boot_unit": has_unit,
    }


def command_text(paths: NodePaths) -> bytes:
    """Returns the node's command: isolated Python, our release and nothing else."""
    return COMMAND.format(python=python_path(), release=paths.release).encode()


def unit_text(paths: NodePaths, started_after: tuple[str, ...] = ()) -> bytes:
    """Returns the boot unit; ``started_after`` has units beside the known ones."""
    units = " ".join(dict.fromkeys((*STARTED_AFTER, *started_after)))
    text = UNIT.format(command=paths.command, configuration=paths.configuration, started_after=units)
    return text.encode()


def python_path() -> str:
    """Returns the interpreter that runs this very code on the node."""
    return sys.executable or "/usr/bin/python3"
