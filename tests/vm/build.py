"""Building images: Debian's packages become a disk, a kernel, an initial file system and a snapshot.

Everything lies under build/vm/. An image appears under its recipe's hash when it is whole; a build that
is broken off leaves a folder that the next one removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.vm import acceleration, archive, initial_file_system, kernel_package
from tests.vm.guest import Guest
from tests.vm.image import Image
from tests.vm.recipe import GUEST_FILES, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIRECTORY = Path(__file__).resolve().parents[2] / "build" / "vm"
GUESTS = DIRECTORY / "guests"
NEEDED_BYTES = 6 << 30
"""What a build takes at its fullest: the packages twice, the disk once as it is and once packed."""
DISK_BYTES = 4 << 30
LOG_TAIL_LINES = 15
#: Also of the programs that run within the guest's folder.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
#: systemd's PAM module would wait for a login manager that is not there.
LOGIN_SESSION_FILE = "etc/pam.d/common-session"
NOT_UNPACKED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")


class BuildError(RuntimeError):
    """An image could not be built; says which step failed and why."""


@dataclass(frozen=True)
class Builder:
    """Builds images below one folder and says what it does."""

    directory: Path

    def image(self, recipe: Recipe) -> Image:
        """Return where the recipe's image is, or would be."""
        return Image(self.directory / "images" / recipe.digest())

    def provide(self, recipe: Recipe) -> Image:
        """Return the recipe's image, built now unless it is there. Raises BuildError."""
        image = self.image(recipe)
        if image.is_whole():
            return image
        self.directory.mkdir(parents=True, exist_ok=True)
        check_space(self.directory)
        with self._work_directory() as work:
            begin = time.monotonic()
            say(f"==> building a guest with Linux {recipe.kernel.name}, in {self.directory}\n")
            self._build(recipe, work)
            image.directory.parent.mkdir(exist_ok=True)
            shutil.rmtree(image.directory, ignore_errors=True)
            (work / "image").rename(image.directory)
            say(f"==> built in {time.monotonic() - begin:.0f} s: {image.directory}\n")
        return image

    def _build(self, recipe: Recipe, work: Path) -> None:
        root, made = work / "root", Image(work / "image")
        made.directory.mkdir()
        found = archive.find()
        userland = self._userland(recipe, found, work)
        root.mkdir()
        self._run("unpacking the userland", ["tar", "-C", str(root), "-xf", str(userland)])
        with step(f"fetching {recipe.kernel.package} of {recipe.kernel.suite}"):
            packages = kernel_package.fetch(recipe.kernel, found, work)
        unpacked = work / "kernel"
        with step("unpacking the kernel"):
            for package in packages:
                call(["dpkg-deb", "--extract", str(package), str(unpacked)])
        modules = kernel_package.modules(unpacked)
        release = modules.name
        shutil.copy(kernel_package.kernel(unpacked), made.kernel)
        # Not unpacked into the guest's root: its /lib is a link, the package's is a folder. With the
        # kernel's headers installed there is a folder of this release already.
        shutil.copytree(modules, root / "usr/lib/modules" / release, symlinks=True, dirs_exist_ok=True)
        self._run("listing its modules", ["chroot", str(root), "depmod", release])
        with step("settling the guest"):
            self._settle(recipe, root, made)
        with step("making the initial file system"):
            initial_file_system.make(root, release, recipe.boot_modules, made.initial_file_system)
        with step("trying to boot with KVM"):
            accelerator = acceleration.choose(made.kernel, made.initial_file_system)
        say(f"  guests are run by {accelerator}\n")
        made.keep_machine(accelerator, recipe.kernel.processor)
        self._make_disk(root, work, made)
        with step("booting once, for the snapshot"):
            Guest.take_snapshot(made)

    def _userland(self, recipe: Recipe, found: archive.Archive, work: Path) -> Path:
        """Return the userland's archive, which images of different kernels share."""
        kept = self.directory / f"userland-{recipe.userland_digest()}.tar"
        if kept.exists():
            return kept
        made = work / "userland.tar"
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
        command += [f"--aptopt={option}" for option in apt_options(found.options)]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_UNPACKED]
        command += [recipe.userland, str(made), found.source(recipe.userland)]
        self._run(f"installing {len(recipe.packages)} packages of {recipe.userland}", command)
        made.rename(kept)
        return kept

    def _settle(self, recipe: Recipe, root: Path, made: Image) -> None:
        """Make the userland a guest: its own files, units, keys."""
        shutil.copytree(GUEST_FILES / "etc", root / "etc", dirs_exist_ok=True)
        in_guest = ["chroot", str(root)]
        call([*in_guest, "systemctl", "enable", *recipe.enabled_units])
        call([*in_guest, "systemctl", "mask", *recipe.masked_units])
        call([*in_guest, "ssh-keygen", "-A"])
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", str(made.login_key)])
        keys = root / "root" / ".ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(made.login_key.with_suffix(".pub"), keys / "authorized_keys")
        host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8")
        made.host_key.write_text(host_key, encoding="utf-8")
        session = root / LOGIN_SESSION_FILE
        lines = session.read_text(encoding="utf-8").splitlines(keepends=True)
        session.write_text("".join(line for line in lines if "pam_systemd" not in line), encoding="utf-8")

    def _make_disk(self, root: Path, work: Path, made: Image) -> None:
        raw = work / "disk.raw"
        with raw.open("wb") as file:
            file.truncate(DISK_BYTES)
        options = ["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum"]
        options += ["-E", "lazy_itable_init=1,discard", "-d", str(root)]
        self._run("writing the disk", ["mke2fs", *options, str(raw)])
        self._run("packing the disk", ["qemu-img", "convert", "-O", "qcow2", str(raw), str(made.disk)])
        raw.unlink()

    def _run(self, what: str, command: Sequence[str]) -> None:
        with step(what):
            call(command)

    @contextlib.contextmanager
    def _work_directory(self) -> Iterator[Path]:
        for old in self.directory.glob("build-*"):
            shutil.rmtree(old)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=self.directory))
        try:
            yield work
        finally:
            shutil.rmtree(work)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done, and afterwards how long it took; a failure's error says what failed."""
    say(f"  {what} ...")
    begin = time.monotonic()
    try:
        yield
    except (OSError, RuntimeError) as error:
        say(" failed\n")
        raise BuildError(f"{what}: {error}") from error
    say(f" {time.monotonic() - begin:.0f} s\n")


def say(text: str) -> None:
    """Tell whoever waits; standard output is for results."""
    sys.stderr.write(text)
    sys.stderr.flush()


def call(command: Sequence[str], *, standard_input: str = "", successes: Sequence[int] = (0,)) -> None:
    """Run a program to its end; raises BuildError with its last lines when it fails."""
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed") from error
    if done.returncode not in successes:
        tail = "\n".join(done.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{tail}")


def check_space(directory: Path) -> None:
    """Raise BuildError unless a build has room there."""
    free = shutil.disk_usage(directory).free
    if free < NEEDED_BYTES:
        raise BuildError(
            f"{directory} has {free >> 20} MB free, a build takes up to {NEEDED_BYTES >> 20} MB: make room"
        )


def apt_options(options: Sequence[str]) -> Iterator[str]:
    """Yield options as apt's configuration files have them."""
    for option in options:
        name, _, value = option.partition("=")
        yield f'{name} "{value}"'
