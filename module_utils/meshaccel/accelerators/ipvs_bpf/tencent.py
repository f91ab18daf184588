# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""TencentOS's own IPVS-BPF: a parameter of its ip_vs, which cannot be changed while the module is loaded.

Its kernels (Tencent/TencentOS-kernel, 4.14 and later) load ip_vs with
``mode``: 0 as upstream, 1 BPF, 2 BPF with a shared namespace; the oldest have
a bool. The programs are handed over through files in /proc/net by Tencent's
own kube-proxy, which is not public: meshaccel loads the module in the wished
mode, and no more. The mode needs net.ipv4.vs.conntrack = 0.

Changing it means reloading ip_vs, with every service gone. That is refused
unless the operator asks for it (``ipvs_bpf_tencent_reload``) on a node whose
IPVS is empty; rmmod refuses too while anybody uses it. Services are never
removed here: they are their managers'.

This has been run against an imitation of the kernel's files only, never on
such a kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable

from ...engine import Handler
from ...errors import MeshaccelError, Unsupported
from ...model import Action, Json, Plan
from ...system import tools
from ...system.sysctl import ROOT
from . import owned_files

MODULE = "ip_vs"
PARAMETER = "sys/module/ip_vs/parameters/mode"
HOLDERS = "sys/module/ip_vs/holders"
HANDOVER = "proc/net/ip_vs_bpf_id"
SERVICES = "proc/net/ip_vs"
CONNECTIONS = "proc/net/ip_vs_conn"
OPTIONS_FILE = "etc/modprobe.d/meshaccel-ipvs.conf"
#: What mode 1 needs; over what ipvs_bpf sets otherwise.
SETTINGS = {"net.ipv4.vs.conntrack": "0"}
ORIGINAL = 0
BPF = 1
#: How the parameter reads where it is a bool.
WORDS = {"N": ORIGINAL, "Y": BPF}
#: Nothing has been handed over: process, map and programs are 0.
NOTHING = "0:0:0:0"
PROTOCOLS = ("TCP", "UDP", "SCTP", "FWM")
PACKAGE = "kmod"

UNLOAD = "ipvs_bpf.tencent_unload"
LOAD = "ipvs_bpf.tencent_load"
CHECK_EMPTY = "ipvs_bpf.tencent_check_empty"
CHECK_MODE = "ipvs_bpf.tencent_check_mode"


@dataclass(frozen=True)
class Observed:
    """ip_vs as it is loaded.

    ``mode`` is None on other kernels, and while ip_vs is not loaded.
    ``handover`` is what the kernel says of the programs it was given, empty:
    none. ``holders`` are {module: its users} of the modules that use ip_vs.
    """

    mode: int | None = None
    handover: str = ""
    services: int = 0
    connections: int = 0
    holders: Mapping[str, int] | None = None
    options: str | None = None

    @property
    def active(self) -> bool:
        """True when ip_vs does what ours would do: ours must not be attached then."""
        return bool(self.mode)

    @property
    def in_use(self) -> tuple[str, ...]:
        """What keeps ip_vs from being reloaded, in words."""
        users = [f"{count} users of {name}" for name, count in sorted((self.holders or {}).items()) if count]
        return (
            *((f"{self.services} services",) if self.services else ()),
            *((f"{self.connections} connections",) if self.connections else ()),
            # Services of other network namespaces have their schedulers.
            *users,
            *((f"programs handed over ({self.handover})",) if self.handover else ()),
        )


@dataclass(frozen=True)
class Modules:
    """How modules are loaded and unloaded."""

    load: Callable[[str], object] = lambda name: tools.run(["modprobe", name], package=PACKAGE)
    unload: Callable[[str], object] = lambda name: tools.run(["rmmod", name], package=PACKAGE)


# ---- what is there ----


def observe(root: str = ROOT) -> Observed:
    """Looks at ip_vs; on other kernels nothing but the missing parameter is looked at."""
    mode = read_mode(root)
    options = owned_files.read(root, OPTIONS_FILE)
    if mode is None:
        return Observed(options=options)
    handover = (owned_files.read(root, HANDOVER) or "").strip()
    return Observed(
        mode=mode,
        handover="" if handover == NOTHING else handover,
        services=sum(line.startswith(PROTOCOLS) for line in lines(root, SERVICES)),
        connections=sum(line.startswith(PROTOCOLS) for line in lines(root, CONNECTIONS)),
        holders={name: users(root, name) for name in holders(root)},
        options=options,
    )


def read_mode(root: str) -> int | None:
    """Returns the parameter; None where the loaded ip_vs has none. Raises Unsupported for a word unknown."""
    found = owned_files.read(root, PARAMETER)
    if found is None:
        return None
    word = found.strip()
    if word not in WORDS and not word.isdecimal():
        raise Unsupported(
            wanted=f"a number in /{PARAMETER}", found=repr(word), remedy="report it: this kernel is not known"
        )
    return WORDS[word] if word in WORDS else int(word)


def holders(root: str) -> list[str]:
    """Returns the modules that use ip_vs."""
    try:
        return sorted(os.listdir(os.path.join(root, HOLDERS)))
    except FileNotFoundError:
        return []


def users(root: str, module: str) -> int:
    """Returns how many use a module; 0 for one that is not there."""
    return int(owned_files.read(root, f"sys/module/{module}/refcnt") or 0)


def lines(root: str, path: str) -> list[str]:
    """Returns a file's lines; none of a missing one."""
    return (owned_files.read(root, path) or "").splitlines()


# ---- plan ----


def make_plan(bpf: bool, reload: bool, observed: Observed) -> Plan:
    """Has ip_vs loaded in the mode for a wish, and again at boot; does nothing on other kernels.

    Raises Unsupported when ip_vs would have to be reloaded and that was not
    asked for, or is in use; NotOurs when a file of our name is not ours.
    """
    if observed.mode is None:
        # Not loaded, or another kernel: what is left of ours goes.
        left = not bpf and (observed.options or "").startswith(owned_files.MARK)
        return owned_files.writing(OPTIONS_FILE, None, observed.options) if left else ()
    options = owned_files.writing(OPTIONS_FILE, options_text() if bpf else None, observed.options)
    if observed.active == bpf:
        return options
    refuse_unless_empty(bpf, reload, observed)
    mode = BPF if bpf else ORIGINAL
    names = sorted(observed.holders or {})
    return (
        Action(CHECK_EMPTY, "see that nobody uses ip_vs"),
        *(unloading(name) for name in (*names, MODULE)),
        *options,
        loading(MODULE),
        Action(CHECK_MODE, f"see that ip_vs has mode {mode}", {"mode": mode}),
        *map(loading, names),
    )


def refuse_unless_empty(bpf: bool, reload: bool, observed: Observed) -> None:
    """Raises Unsupported when ip_vs may not be reloaded now."""
    wanted = f"ipvs_bpf_mode: {'bpf' if bpf else 'native'} on TencentOS, whose ip_vs has a mode of its own"
    steps = (
        "drain the node, stop what manages its services (kube-proxy, keepalived), remove them (ipvsadm -C) "
        "and wait until ipvsadm -lc is empty; then run with ipvs_bpf_tencent_reload: true"
    )
    if not reload:
        raise Unsupported(
            wanted=wanted,
            found=f"ip_vs loaded with mode={observed.mode}, which only loading it anew changes",
            remedy=steps,
        )
    if observed.in_use:
        raise Unsupported(wanted=wanted, found=f"ip_vs in use: {', '.join(observed.in_use)}", remedy=steps)


def options_text() -> str:
    """Returns our file for modprobe."""
    return f"{owned_files.MARK}\noptions {MODULE} mode={BPF}\n"


def unloading(name: str) -> Action:
    """Builds the step that unloads a module."""
    back = Action(LOAD, f"load {name}", {"module": name})
    return Action(UNLOAD, f"unload {name}", {"module": name}, (back,))


def loading(name: str) -> Action:
    """Builds the step that loads a module."""
    back = Action(UNLOAD, f"unload {name}", {"module": name})
    return Action(LOAD, f"load {name}", {"module": name}, (back,))


# ---- carrying out ----


def handlers(root: str = ROOT, modules: Modules = Modules()) -> dict[str, Handler]:
    """Returns the handlers of these steps."""

    def check_empty(_: Mapping[str, Json]) -> None:
        require("nobody to use ip_vs", observe(root).in_use)

    def unload(arguments: Mapping[str, Json]) -> None:
        if os.path.exists(os.path.join(root, "sys/module", arguments["module"])):
            modules.unload(arguments["module"])

    def load(arguments: Mapping[str, Json]) -> None:
        modules.load(arguments["module"])

    def check_mode(arguments: Mapping[str, Json]) -> None:
        mode = read_mode(root)
        wrong = () if mode == arguments["mode"] else (f"mode {mode}; another file may set it",)
        require(f"ip_vs with mode {arguments['mode']}", wrong)

    return {
        CHECK_EMPTY: check_empty,
        UNLOAD: unload,
        LOAD: load,
        CHECK_MODE: check_mode,
        **owned_files.handlers(root),
    }


def require(wanted: str, wrong: Iterable[str]) -> None:
    """Raises MeshaccelError when something is wrong."""
    found = ", ".join(wrong)
    if found:
        raise MeshaccelError(
            wanted=wanted, found=found, remedy="see modprobe -c | grep ip_vs, and ipvsadm -ln"
        )
