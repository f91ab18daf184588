"""The initial file system: a shell, the modules of the disk, and a script of a few lines."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.vm.recipe import GUEST_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDERS = ("bin", "dev", "proc", "sys", "disk", "modules")
BUSYBOX = "bin/busybox"
COMPRESSED = ".xz"
APPLETS = ("sh", "mount", "insmod", "sleep", "switch_root", "poweroff")


def make(root: Path, release: str, modules: Sequence[str], target: Path) -> None:
    """Write the initial file system of an unpacked guest. Modules the kernel has built in are left out."""
    library = root / "lib" / "modules" / release
    dependencies = parse_dependencies((library / "modules.dep").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        tree = Path(name)
        for folder in FOLDERS:
            (tree / folder).mkdir()
        shutil.copy(root / BUSYBOX, tree / BUSYBOX)
        for applet in APPLETS:
            (tree / "bin" / applet).symlink_to("busybox")
        shutil.copy(GUEST_FILES / "init", tree / "init")
        names = []
        for path in in_order(dependencies, modules):
            names.append(Path(path).name.removesuffix(COMPRESSED))
            (tree / "modules" / names[-1]).write_bytes(read_module(library / path))
        (tree / "modules" / "order").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        target.write_bytes(gzip.compress(pack(tree), compresslevel=1))


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """Return modules.dep: each module's path, with those it needs, the nearest first."""
    lines = (line.partition(":") for line in text.splitlines())
    return {path: needed.split() for path, _, needed in lines}


def in_order(dependencies: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    """Return the paths of these modules and of all they need, in the order to load them."""
    by_name = {module_name(path): path for path in dependencies}
    ordered: list[str] = []
    for name in names:
        path = by_name.get(name)
        needed = [] if path is None else [*reversed(dependencies[path]), path]
        ordered += [item for item in needed if item not in ordered]
    return ordered


def module_name(path: str) -> str:
    """Return the name that modprobe knows a module's file by."""
    return Path(path).name.split(".")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """Return a module; later kernels have them compressed, which insmod does not know."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == COMPRESSED else content


def pack(tree: Path) -> bytes:
    """Return the folder as the kernel unpacks it (cpio, "newc")."""
    names = "".join(f"{path.relative_to(tree)}\0" for path in sorted(tree.rglob("*")))
    command = ["cpio", "--null", "--create", "--format=newc", "--quiet", "--owner=0:0"]
    return subprocess.run(command, input=names.encode(), cwd=tree, capture_output=True, check=True).stdout
