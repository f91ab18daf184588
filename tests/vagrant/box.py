"""Makes an image of tests/vm into a box for vagrant-libvirt: the same guest, with a boot loader of its own.

A box lies in a folder of the user's, where the QEMU of a system's libvirt may not read. So the disk, which
Vagrant uploads, is all that is needed to boot.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.vm import emulator, initial_file_system
from tests.vm.build import DISK_BYTES, BuildError, call, check_space, say, step
from tests.vm.recipe import GUEST_FILES, KERNELS, Recipe

if TYPE_CHECKING:
    from tests.vm.image import Image

#: Names the layout of what is made of an image.
FORMAT = 1
BOX_FILES = Path(__file__).parent / "box_files"
GRUB_DIRECTORY = Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "boot")
#: What the first sector has before the partition table. The boot loader follows in the sectors after it.
BOOT_PROGRAM_BYTES = 440
SECTOR_BYTES = 512
PARTITION_START = 1 << 20
DISK_GIGABYTES = 5
#: The guest's init mounts the disk; here the file system is the disk's first partition.
DISK_DEVICE = "/dev/vda"
PARTITION_DEVICE = "/dev/vda1"
#: e2fsck says that it has mended something: the disk of a snapshot was never unmounted.
MENDED = 1


@dataclass(frozen=True)
class Box:
    """A box with one of the kernels; it may not be built yet."""

    kernel: str
    directory: Path

    @property
    def recipe(self) -> Recipe:
        """That of the image which it is made of."""
        return Recipe(KERNELS[self.kernel])

    @property
    def name(self) -> str:
        """What Vagrant knows it by: its kernel, and a hash of all that goes into it."""
        written = [FORMAT, self.recipe.digest(), boot_script(), metadata()]
        state = hashlib.sha256(json.dumps(written).encode())
        for path in sorted(BOX_FILES.iterdir()):
            state.update(f"\0{path.name}\0".encode() + path.read_bytes())
        return f"meshaccel-{self.kernel}-{state.hexdigest()[:16]}"

    @property
    def path(self) -> Path:
        """Its file, as `vagrant box add` takes it."""
        return self.directory / f"{self.name}.box"

    def provide(self, image: Image) -> Path:
        """Return its file, made now of its image unless it is there. Raises BuildError."""
        if self.path.exists():
            return self.path
        self.directory.mkdir(parents=True, exist_ok=True)
        check_space(self.directory)
        say(f"==> making a box with Linux {self.kernel}, in {self.directory}\n")
        with tempfile.TemporaryDirectory(prefix="build-", dir=self.directory) as name:
            work = Path(name)
            make_disk(image, work)
            with step("packing the box"):
                self._pack(image, work).rename(self.path)
        return self.path

    def _pack(self, image: Image, work: Path) -> Path:
        """Return the box: its disk, the key to log in with and what Vagrant has to know."""
        described, processor, made = work / "metadata.json", work / "processor", work / "made.box"
        described.write_text(json.dumps(metadata()), encoding="ascii")
        processor.write_text(self.recipe.kernel.processor, encoding="ascii")
        with tarfile.open(made, "w") as archive:
            for path in (described, processor, BOX_FILES / "Vagrantfile", image.login_key, work / "box.img"):
                archive.add(path, arcname=path.name)
        return made


def make_disk(image: Image, work: Path) -> None:
    """Make box.img, a disk that boots by itself, of an image's disk."""
    raw = work / "disk.raw"
    with step("making the disk"):
        with raw.open("wb") as file:
            file.truncate(PARTITION_START + DISK_BYTES)
        partition(raw)
        # A comma would begin the next option.
        target = f"driver=raw,offset={PARTITION_START},size={DISK_BYTES},file.driver=file,file.filename="
        target += str(raw).replace(",", ",,")
        call(
            ["qemu-img", "convert", "-n", "--target-is-zero", "--target-image-opts", str(image.disk), target]
        )
    with step("settling the guest"):
        settle(image, f"{raw}?offset={PARTITION_START}", work)
    with step("making it bootable"):
        make_bootable(raw, work)
    with step("packing the disk"):
        call(["qemu-img", "convert", "-O", "qcow2", str(raw), str(work / "box.img")])
    raw.unlink()


def partition(raw: Path) -> None:
    """Write a partition table with one partition, from which to boot."""
    wish = f"label: dos\nstart={PARTITION_START // SECTOR_BYTES}, type=83, bootable\n"
    call(["sfdisk", "--quiet", str(raw)], standard_input=wish)


def settle(image: Image, file_system: str, work: Path) -> None:
    """Put into a file system what the guest boots from, and a network that asks for its address."""
    init = work / "init" / "init"
    init.parent.mkdir()
    init.write_text(init_of_partition(), encoding="utf-8")
    init.chmod(0o755)
    added = work / "partition.cpio"
    added.write_bytes(initial_file_system.pack(init.parent))
    files = {
        "/boot/vmlinuz": image.kernel,
        "/boot/initrd.gz": image.initial_file_system,
        "/boot/partition.cpio": added,
        "/etc/systemd/network/10-eth0.network": BOX_FILES / "10-eth0.network",
    }
    check_file_system(file_system)
    for path, source in files.items():
        write(file_system, path, source)
    check_file_system(file_system)


def init_of_partition() -> str:
    """Return the guest's init, which mounts the partition."""
    text = (GUEST_FILES / "init").read_text(encoding="utf-8")
    return text.replace(DISK_DEVICE, PARTITION_DEVICE)


def write(file_system: str, path: str, source: Path) -> None:
    """Write a file's contents into a file system that is not mounted. Raises BuildError."""
    call(["debugfs", "-w", "-R", f"rm {path}", file_system])
    call(["debugfs", "-w", "-R", f'write "{source}" {path}', file_system])
    # It ends well whatever went wrong.
    read = subprocess.run(
        ["/sbin/debugfs", "-R", f"cat {path}", file_system], capture_output=True, check=False
    )
    if read.stdout != source.read_bytes():
        raise BuildError(f"{path} was not written: {read.stderr.decode(errors='replace').strip()}")


def check_file_system(file_system: str) -> None:
    """Mend what is open in a file system. Raises BuildError when that is not possible."""
    call(["e2fsck", "-f", "-p", file_system], successes=(0, MENDED))


def boot_script() -> str:
    """Return what the boot loader does."""
    return (
        "set root=(hd0,msdos1)\n"
        f"linux /boot/vmlinuz {emulator.KERNEL_ARGUMENTS}\n"
        "initrd /boot/initrd.gz /boot/partition.cpio\n"
        "boot\n"
    )


def make_bootable(raw: Path, work: Path) -> None:
    """Write the boot loader before the partition."""
    script, core = work / "boot_script", work / "core.img"
    script.write_text(boot_script(), encoding="ascii")
    make = ["grub-mkimage", "-O", "i386-pc", "-d", str(GRUB_DIRECTORY), "-p", "/boot"]
    call([*make, "-c", str(script), "-o", str(core), *GRUB_MODULES])
    with raw.open("r+b") as disk:
        disk.write((GRUB_DIRECTORY / "boot.img").read_bytes()[:BOOT_PROGRAM_BYTES])
        disk.seek(SECTOR_BYTES)
        disk.write(core.read_bytes())


def metadata() -> dict[str, object]:
    """Return what vagrant-libvirt wants to know of the disk; its size is in GB."""
    return {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIGABYTES}
