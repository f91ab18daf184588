"""An image's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.vm import emulator
from tests.vm.acceleration import boots_with_kvm

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
    def accelerator(self) -> str:
        """What its snapshot was taken with, and so what runs its guests, as QEMU names it."""
        return self._accelerator.read_text(encoding="ascii")

    @property
    def processor(self) -> str:
        """The processor of a guest that is emulated, as QEMU names it."""
        return self._processor.read_text(encoding="ascii")

    def keep_machine(self, accelerator: str, processor: str) -> None:
        """Write down what runs its guests."""
        self._accelerator.write_text(accelerator, encoding="ascii")
        self._processor.write_text(processor, encoding="ascii")

    @property
    def uses_kvm(self) -> bool:
        """Whether this machine's processor runs its guests' instructions itself."""
        return self.accelerator == emulator.KVM

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
        return not self.uses_kvm or boots_with_kvm(self.kernel, self.initial_file_system)

    @property
    def _accelerator(self) -> Path:
        return self.directory / "accelerator"

    @property
    def _processor(self) -> Path:
        return self.directory / "processor"
