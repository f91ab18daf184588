"""Where Debian's packages come from: what apt on this machine is set up for, or MESHACCEL_MIRROR."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VARIABLE = "MESHACCEL_MIRROR"
INDEX_FORMAT = "$(REPO_URI)\t$(COMPONENT)"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Options of this machine's apt that another apt, with folders of its own, has to be told.
OPTIONS_KEPT = ("Acquire::",)


class ArchiveUnknownError(RuntimeError):
    """This machine's apt does not know an archive of Debian."""


@dataclass(frozen=True)
class Archive:
    """An archive of Debian: its address, and how this machine's apt talks to it."""

    address: str
    options: tuple[str, ...]

    def source(self, suite: str) -> str:
        """Return the line of sources.list for a suite."""
        return f"deb [signed-by={KEYRING}] {self.address} {suite} main"


def find(environment: Mapping[str, str] = os.environ) -> Archive:
    """Return the archive to use; raises ArchiveUnknownError where none is configured."""
    options = tuple(kept_options(run(["apt-config", "dump"])))
    if environment.get(VARIABLE):
        return Archive(environment[VARIABLE].rstrip("/"), options)
    listed = run(["apt-get", "indextargets", "--format", INDEX_FORMAT, "Created-By: Packages"])
    return Archive(address_of_debian(listed.splitlines()), options)


def address_of_debian(listed: Iterable[str]) -> str:
    """Return the address of the archive among apt's, not that of security updates or of another project."""
    for line in listed:
        address, _, component = line.partition("\t")
        if component == "main" and address.rstrip("/").endswith("/debian"):
            return address.rstrip("/")
    raise ArchiveUnknownError(
        f"apt on this machine has no archive of Debian that ends in /debian: name one in {VARIABLE}"
    )


def kept_options(dumped: str) -> list[str]:
    """Return the settings that matter to another apt, as ``-o`` takes them."""
    kept = []
    for line in dumped.splitlines():
        name, _, value = line.rstrip(";").partition(" ")
        if name.startswith(OPTIONS_KEPT) and value not in ("", '""'):
            kept.append(f"{name}={value.strip(chr(34))}")
    return kept
