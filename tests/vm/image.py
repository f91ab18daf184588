"""An image's files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm.acceleration import Acceleration, boots_with_kvm

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
    def acceleration(self) -> Acceleration:
        """What its snapshot was taken with, and so what its guests run with."""
        return Acceleration(**json.loads(self._acceleration_file.read_text(encoding="ascii")))

    def keep_acceleration(self, acceleration: Acceleration) -> None:
        """Write down what its guests run with."""
        self._acceleration_file.write_text(json.dumps(asdict(acceleration)), encoding="ascii")

    @property
    def _acceleration_file(self) -> Path:
        return self.directory / "acceleration.json"

    @property
    def login_key(self) -> Path:
        """The private key that root logs in with."""
        return self.directory / "login_key"

    @property
    def host_key(self) -> Path:
        """The public key that the guest shows."""
        return self.directory / "host_key.pub"

    def is_whole(self) -> bool:
        """Whether it was built, for what this machine can do."""
        if not self.disk.exists():
            return False
        return not self.acceleration.is_kvm or boots_with_kvm(self.kernel, self.initial_file_system)
