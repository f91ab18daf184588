"""A kernel of any of Debian's releases, fetched by apt without touching this machine's own lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import run

if TYPE_CHECKING:
    from tests.vm.archive import Archive
    from tests.vm.recipe import Kernel

DEPENDS = re.compile(r"^\s*Depends: (linux-(?:image|binary|modules)-[^\s<>]+)$", re.MULTILINE)
"""Lines of `apt-cache depends`. Later releases have the kernel and its modules in packages of their own."""
SECONDS = 600.0
FOLDERS = ("lists/partial", "cache/archives/partial")


class NoKernelError(RuntimeError):
    """There is no kernel, or more than one, where one should be."""


def fetch(kernel: Kernel, archive: Archive, work: Path) -> list[Path]:
    """Return the packages that a kernel and its modules are in. Raises ProcessError or NoKernelError."""
    for folder in FOLDERS:
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"{archive.source(kernel.suite)}\n", encoding="utf-8")
    (work / "status").touch()
    options = [*archive.options, *private_folders(work)]
    common = [argument for option in options for argument in ("-o", option)]
    run(["apt-get", *common, "update"], timeout=SECONDS)
    names = DEPENDS.findall(run(["apt-cache", *common, "depends", kernel.package]))
    if not names:
        raise NoKernelError(f"{kernel.package} of {kernel.suite} depends on no image of a kernel")
    names += DEPENDS.findall(run(["apt-cache", *common, "depends", names[0]]))
    run(["env", "-C", str(work), "apt-get", *common, "download", *names], timeout=SECONDS)
    return sorted(work.glob("linux-*.deb"))


def private_folders(work: Path) -> list[str]:
    """Return the options that give apt lists and a cache of its own."""
    return [
        f"Dir::State::lists={work / 'lists'}",
        f"Dir::State::status={work / 'status'}",
        f"Dir::Cache={work / 'cache'}",
        f"Dir::Etc::sourcelist={work / 'sources.list'}",
        "Dir::Etc::sourceparts=/dev/null",
        "APT::Sandbox::User=root",
    ]


def modules(unpacked: Path) -> Path:
    """Return the folder of the modules; its name is the release, as uname -r has it."""
    found = [path for prefix in ("", "usr/") for path in unpacked.glob(f"{prefix}lib/modules/*")]
    if len(found) != 1:
        raise NoKernelError(f"modules of {len(found)} kernels in {unpacked}, not of one")
    return found[0]


def kernel(unpacked: Path) -> Path:
    """Return the kernel itself, in /boot or, in later packages, with its modules."""
    found = [*unpacked.glob("boot/vmlinuz-*"), *modules(unpacked).glob("vmlinuz")]
    if not found:
        raise NoKernelError(f"no vmlinuz in {unpacked}")
    return found[0]
