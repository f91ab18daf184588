# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel module ip_vs: whether it is there, how it gets there, and which schedulers it can have."""

from __future__ import annotations

import os
import re

from ..errors import Unsupported
from ..system import tools

#: There when IPVS is in the kernel, also when it is built in.
LISTING = "/proc/net/ip_vs"
MODULE = "ip_vs"
MODULES = "/lib/modules"
LISTS = ("modules.dep", "modules.builtin")
SCHEDULER = re.compile(r"/ip_vs_([a-z0-9]+)\.ko")
#: Modules of the same names that are no schedulers: applications, persistence engines.
OTHERS = frozenset({"ftp", "pe_sip"})


def loaded() -> bool:
    """True when the kernel has IPVS now."""
    return os.path.exists(LISTING)


def require_available() -> None:
    """Raises Unsupported unless the kernel has IPVS or can load it. Changes nothing."""
    if not loaded():
        modprobe("--dry-run")


def ensure() -> None:
    """Has the kernel load IPVS if it has not; raises Unsupported when that fails."""
    if loaded():
        return
    modprobe()
    if not loaded():
        raise unsupported(f"no {LISTING} after modprobe {MODULE}")


def modprobe(*options: str) -> None:
    """Runs modprobe for IPVS; raises Unsupported with what it says."""
    try:
        tools.run(["modprobe", *options, MODULE], package="kmod")
    except (tools.ToolFailed, Unsupported) as error:
        raise unsupported(error.found) from error


def unsupported(found: str) -> Unsupported:
    """Builds the error for a kernel without IPVS."""
    return Unsupported(
        wanted="IPVS in the kernel",
        found=found,
        remedy="run a kernel with CONFIG_IP_VS, built in or as the module ip_vs, "
        "and in a container load it on its host",
    )


def schedulers() -> frozenset[str] | None:
    """Returns the schedulers that this kernel has, loaded or not; None when nothing lists its modules."""
    directory = os.path.join(MODULES, os.uname().release)
    listed = [text for name in LISTS for text in [_text(os.path.join(directory, name))] if text is not None]
    if not listed:
        return None
    return frozenset(SCHEDULER.findall("\n".join(listed))) - OTHERS


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
