"""An image's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SNAPSHOT = "booted"


@dataclass(frozen=True)
class Image:
    """A folder with all that a guest starts from. The build makes it in one step."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk, with the snapshot of the booted guest in it (qcow2)."""
        return self.directory / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.directory / "vmlinuz"

    @property
    def initial_file_system(self) -> Path:
        """What the kernel unpacks and runs first."""
        return self.directory / "initrd.gz"

    @property
    def processor(self) -> Path:
        """The processor that its snapshot was taken with, as QEMU names it."""
        return self.directory / "processor"

    @property
    def login_key(self) -> Path:
        """The private key that root logs in with."""
        return self.directory / "login_key"

    @property
    def host_key(self) -> Path:
        """The public key that the guest shows."""
        return self.directory / "host_key.pub"

    def is_whole(self) -> bool:
        """Whether it was built."""
        return self.disk.exists()
