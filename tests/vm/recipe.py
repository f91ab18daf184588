"""What an image is made of. An image is kept under the hash of its recipe, so a change makes a new one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm import emulator

GUEST_FILES = Path(__file__).parent / "guest_files"
#: Names the layout of what the build makes of a recipe.
FORMAT = 3

#: Debian's release whose programs every guest has.
USERLAND = "bookworm"
PACKAGES = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "busybox-static",
    "openssh-server",
    "python3",
    "sudo",
    "iproute2",
    "iptables",
    "nftables",
    "ipvsadm",
    "ipset",
    "ethtool",
    "procps",
    "bpftool",
    "libbpf1",
    "libelf1",
    "netcat-openbsd",
    "nginx-light",
    "curl",
    "strace",
    # What uses and shows IPVS: 60 MB in every guest, while an image of its own would take a minute to build.
    "conntrack",
    "keepalived",
    "python3-pyroute2",
    # Real programs behind services: name servers, clients and streams.
    "bind9-dnsutils",
    "dnsmasq-base",
    "iperf3",
    "wrk",
)
#: Units that cost time at boot, and that no test needs.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "keyboard-setup.service",
    "console-setup.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-logind.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-journal-flush.service",
    "systemd-sysusers.service",
    "modprobe@drm.service",
    "modprobe@dm_mod.service",
    "modprobe@loop.service",
    "modprobe@efi_pstore.service",
    "nginx.service",
    "ipvsadm.service",
    "iperf3.service",
    "keepalived.service",
)
ENABLED_UNITS = ("systemd-networkd.service", "ssh.service")
#: What the initial file system has to load before the disk is there; what they need comes along.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian: the release that has it, and the package that depends on its image."""

    name: str
    suite: str
    package: str = "linux-image-cloud-amd64"
    processor: str = emulator.PROCESSOR_WITHOUT_CMPXCHG16B


#: By the name that --kernel takes. The first is the default.
KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("6.1", "bookworm"),
        Kernel("6.12", "trixie"),
        Kernel("newest", "sid", processor=emulator.PROCESSOR),
        Kernel("5.10", "bullseye"),
    )
}
DEFAULT_KERNEL = next(iter(KERNELS))
#: Those that the scenarios are for: sockops needs 5.11.
SCENARIO_KERNELS = ("6.1", "6.12", "newest")
#: Packages that a guest has beside PACKAGES, by the name that --variant takes. The first is the default.
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    # For sockops_loader bcc. The headers are those of the userland's own kernel, 6.1.
    "bcc": ("python3-bpfcc", "linux-headers-cloud-amd64"),
}
DEFAULT_VARIANT = next(iter(VARIANTS))


@dataclass(frozen=True)
class Recipe:
    """One image."""

    kernel: Kernel
    userland: str = USERLAND
    packages: tuple[str, ...] = PACKAGES
    masked_units: tuple[str, ...] = MASKED_UNITS
    enabled_units: tuple[str, ...] = ENABLED_UNITS
    boot_modules: tuple[str, ...] = BOOT_MODULES
    machine: tuple[str, ...] = emulator.MACHINE

    @classmethod
    def of(cls, kernel: str, variant: str = DEFAULT_VARIANT) -> Recipe:
        """Return the recipe of a kernel and a variant, by their names."""
        return cls(KERNELS[kernel], packages=(*PACKAGES, *VARIANTS[variant]))

    def digest(self) -> str:
        """Return the name of its image: a hash of all that goes into it."""
        written = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        state = hashlib.sha256(written.encode())
        for path in sorted(path for path in GUEST_FILES.rglob("*") if path.is_file()):
            state.update(f"\0{path.relative_to(GUEST_FILES)}\0".encode())
            state.update(path.read_bytes())
        return state.hexdigest()[:16]

    def userland_digest(self) -> str:
        """Return the name of what images of the same userland share."""
        written = json.dumps([FORMAT, self.userland, self.packages])
        return hashlib.sha256(written.encode()).hexdigest()[:16]
