"""A node in a folder for the runtime: its places, a release to install, and systemd with only its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel import release, release_archive, runtime, runtime_service
from meshaccel.runtime import Desired
from meshaccel.system import systemd
from tests.unit.file_tree import file_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from meshaccel.paths import NodePaths
    from tests.unit.file_tree import Entry

FIRST = {"meshaccel/__init__.py": b"", "bpf/sockops.bpf.o": b"first"}
SECOND = {"meshaccel/__init__.py": b"", "bpf/sockops.bpf.o": b"second"}
ABSENT = Desired(present=False)
#: As systemctl: a unit is enabled by a link, and one without a file can be neither enabled nor disabled.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> {log}
wanted={units}/multi-user.target.wants
if [ -e {log}.$1 ]; then
    echo "refused: $1" >&2
    exit 1
fi
[ "$1" = daemon-reload ] && exit 0
if [ ! -e {units}/$2 ]; then
    echo "Failed to $1 unit: Unit file $2 does not exist." >&2
    exit 1
fi
mkdir -p $wanted
case "$1" in
    enable) ln -sf ../$2 $wanted/$2 ;;
    disable) rm -f $wanted/$2 ;;
    *) echo "not imitated: $1" >&2; exit 2 ;;
esac
"""


@dataclass(frozen=True)
class RuntimeNode:
    """The node; `with_systemd` replaced what runs as PID 1 for the package."""

    paths: NodePaths

    @property
    def log(self) -> Path:
        """Where the fake systemctl writes its arguments."""
        return Path(self.paths.units).parent / "systemctl.log"

    @property
    def calls(self) -> list[str]:
        """What systemctl was asked, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def unit(self) -> Path:
        """The boot unit."""
        return Path(self.paths.units, runtime.UNIT_NAME)

    @property
    def enabled(self) -> bool:
        """Whether systemd would start the unit at boot."""
        return (self.unit.parent / "multi-user.target.wants" / self.unit.name).is_symlink()

    def refuse(self, verb: str) -> None:
        """Have systemctl fail at this from now on."""
        Path(f"{self.log}.{verb}").touch()

    def install(self, contents: Mapping[str, bytes] = FIRST) -> None:
        """Converge to a release."""
        runtime_service.run(wish(contents), self.paths)

    def in_use(self) -> dict[str, Entry]:
        """Return every file that the node uses: the selected release, the command, the unit and its link."""
        everything = file_tree(Path(self.paths.library).parent)
        unused = [
            f"library/{name}"
            for name in release.names(self.paths.library)
            if name != release.selected(self.paths.library)
        ]
        ignored = (*unused, self.log.name)
        return {
            name: entry
            for name, entry in everything.items()
            if entry.content is not None and not name.startswith(ignored)
        }


def wish(contents: Mapping[str, bytes]) -> Desired:
    """Return the wish for a release."""
    return Desired(True, release.digest_of(contents), release_archive.pack(contents))


def run_systemd(node: RuntimeNode, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have systemd be the init, with a systemctl that only keeps its files."""
    systemctl = directory / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(log=node.log, units=node.paths.units))
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "running", lambda: True)


def run_no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something else be the init."""
    monkeypatch.setattr(systemd, "running", lambda: False)
