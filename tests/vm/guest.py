"""A running guest: QEMU in the background, reached by ssh over this machine's loopback alone."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.vm import emulator, network
from tests.vm.image import SNAPSHOT, Image
from tests.vm.monitor import Monitor, MonitorError
from tests.vm.network import Membership

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER = "root"
ADDRESS = "127.0.0.1"
BOOT_SECONDS = 240.0
"""What a first boot may take; under emulation on a busy machine it is a minute."""
RESTORE_SECONDS = 60.0
STOP_SECONDS = 10.0
LOGIN_SECONDS = 10
POLL_SECONDS = 0.2
CALL_SECONDS = 120.0
SERIAL_TAIL_LINES = 15


class GuestError(RuntimeError):
    """A guest did not start, did not answer, or a command in it failed."""


@dataclass(frozen=True)
class Guest:
    """A guest, by the folder that has its disk, its console and its process id."""

    directory: Path
    image: Image

    # ---- life ----

    @classmethod
    def start(cls, image: Image, directory: Path, member: Membership | None = None) -> Guest:
        """Start a guest from its image's snapshot; returns when it can be logged in to.

        A member of a network has its address there, now and after every boot.
        One that was left in the same folder is ended first. Raises GuestError, and then no
        process is left.
        """
        guest = cls._with_a_disk(image, directory)
        with guest._ended_on_failure():
            guest._run_emulator(guest._second_card(member), snapshot=SNAPSHOT)
            guest.wait_for_login(RESTORE_SECONDS)
            # A guest that comes back from a snapshot believes in the time it was taken.
            guest.call(["date", "--utc", "--set", f"@{time.time():.0f}"])
            if member:
                guest._join(member)
        return guest

    @classmethod
    def start_counting(cls, image: Image, directory: Path) -> Guest:
        """Boot a guest of one processor, whose clock counts instructions: emulator.counting().

        It boots, since a snapshot is of a machine that does not count, and is given out when it has done
        so. Otherwise as start().
        """
        guest = cls._with_a_disk(image, directory)
        with guest._ended_on_failure():
            guest._run_emulator([], execution=emulator.counting(image.processor))
            guest.wait_for_login(BOOT_SECONDS)
            guest.call(["systemctl", "is-system-running", "--wait"])
        return guest

    @classmethod
    def find(cls, directory: Path) -> Guest:
        """Return the guest that was started in a folder; it may have ended."""
        return cls(directory, Image((directory / "image").resolve()))

    @classmethod
    def take_snapshot(cls, image: Image) -> None:
        """Boot an image's disk once and keep the state after boot in it. Raises GuestError."""
        guest = cls(image.directory / "first-boot", image)
        guest.directory.mkdir()
        image.disk.rename(guest.disk)
        with guest._ended_on_failure():
            guest._run_emulator([])
            guest.wait_for_login(BOOT_SECONDS)
            guest.call(["sync"])
            with Monitor(guest._monitor_path) as monitor:
                monitor.save(SNAPSHOT)
        guest._end_process()
        guest.disk.rename(image.disk)
        shutil.rmtree(guest.directory)

    def stop(self) -> None:
        """End it, as by taking the plug, and remove its folder; nothing when there is none."""
        self._end_process()
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process() is not None

    def reboot(self) -> str:
        """Reboot it and wait until its units are started; returns systemd's word for the outcome.

        Raises GuestError.

        It boots in a new process of the emulator: to the old one, each write over the kernel that ran before
        is one over code that it has translated, and it may take minutes over the new kernel.
        """
        with Monitor(self._monitor_path) as monitor:
            monitor.end_at_reboot()
        # The connection goes with the guest's network.
        with contextlib.suppress(GuestError):
            self.call(["systemctl", "reboot"])
        deadline = time.monotonic() + BOOT_SECONDS
        while self.is_running():
            if time.monotonic() > deadline:
                raise GuestError(f"{self.directory.name} did not go down in {BOOT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        self._execute(json.loads(self._boot_command.read_text(encoding="utf-8")))
        self.wait_for_login(BOOT_SECONDS)
        # Its exit status is another word for the same.
        return self.call(["sh", "-c", "systemctl is-system-running --wait || true"]).strip()

    # ---- use ----

    def call(
        self,
        command: Sequence[str],
        *,
        seconds: float = CALL_SECONDS,
        errors: int | None = subprocess.PIPE,
    ) -> str:
        """Run a program in the guest and return its output; raises GuestError when it fails.

        With `errors` None its standard error goes to ours, line by line, instead of into the exception.
        """
        try:
            done = subprocess.run(
                [*self.login_command(), shlex.join(command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"{shlex.join(command)}: not finished after {seconds:.0f} s") from error
        if done.returncode:
            said = (done.stderr or "").strip()
            raise GuestError(f"{shlex.join(command)}: exit status {done.returncode}\n{said}")
        return done.stdout

    def show(self, command: Sequence[str], *, seconds: float) -> int:
        """Run a program in the guest with its output on ours; returns its exit status. Raises GuestError."""
        shown = [*self.login_command(), shlex.join(command)]
        try:
            return subprocess.run(shown, stdin=subprocess.DEVNULL, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"{shlex.join(command)}: not finished after {seconds:.0f} s") from error

    def copy(self, source: Path, target: str, names: Sequence[str] = (".",)) -> None:
        """Copy contents of a folder, by default all, into one of the guest's, which is made.

        Folders that are there stay as they are, and what comes is root's. Raises GuestError.
        """
        pack = ["tar", "-C", str(source), "--exclude=__pycache__", "-cf", "-", *names]
        folder = shlex.quote(target)
        unpack = f"mkdir -p {folder} && tar -C {folder} --no-same-owner --no-overwrite-dir -xf -"
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
            done = subprocess.run(
                [*self.login_command(), unpack],
                stdin=packing.stdout,
                capture_output=True,
                text=True,
                timeout=CALL_SECONDS,
                check=False,
            )
        if done.returncode or packing.returncode:
            raise GuestError(f"{source} cannot be copied: {done.stderr.strip()}")

    def login_command(self) -> list[str]:
        """Return the ssh command that logs in."""
        options = [f"-o{name}={value}" for name, value in self.login_options().items()]
        return ["ssh", *options, "-p", str(self.port), f"{USER}@{ADDRESS}"]

    def login_options(self) -> dict[str, str]:
        """Return the options of ssh by which this guest, and no other, is logged in to."""
        return {
            "IdentityFile": str(self.image.login_key.absolute()),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str((self.directory / "known_hosts").absolute()),
            "ConnectTimeout": str(LOGIN_SECONDS),
            "LogLevel": "ERROR",
        }

    def wait_for_login(self, seconds: float) -> None:
        """Wait until a login works. Raises GuestError with the console's last lines."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.is_running():
                raise GuestError(f"{self.directory.name} ended by itself{self._console_tail()}")
            with contextlib.suppress(GuestError):
                self.call(["true"], seconds=LOGIN_SECONDS)
                return
            time.sleep(POLL_SECONDS)
        raise GuestError(
            f"{self.directory.name} cannot be logged in to after {seconds:.0f} s{self._console_tail()}"
        )

    @property
    def membership(self) -> Membership | None:
        """Its place in a network of guests; None when it is in none, or does not run."""
        return Membership.read(self.directory) if self.is_running() else None

    @property
    def disk(self) -> Path:
        """Its own disk."""
        return self.directory / "disk.qcow2"

    @property
    def port(self) -> int:
        """The port of this machine's loopback that leads to its ssh server."""
        return int((self.directory / "port").read_text(encoding="ascii"))

    # ---- inside ----

    @property
    def _process_file(self) -> Path:
        return self.directory / "process_id"

    @property
    def _monitor_path(self) -> Path:
        return self.directory / "monitor"

    @property
    def _console(self) -> Path:
        return self.directory / "console"

    @classmethod
    def _with_a_disk(cls, image: Image, directory: Path) -> Guest:
        """Return a guest that is not running yet, with a copy of the image's disk."""
        guest = cls(directory, image)
        guest.stop()
        directory.mkdir(parents=True)
        (directory / "image").symlink_to(image.directory.absolute())
        shutil.copyfile(image.disk, guest.disk)
        return guest

    @property
    def _boot_command(self) -> Path:
        """The emulator's command line by which it boots, as JSON."""
        return self.directory / "boot_command"

    def _run_emulator(
        self, more: Sequence[str], *, snapshot: str | None = None, execution: Sequence[str] = ()
    ) -> None:
        port = free_port()
        (self.directory / "port").write_text(str(port), encoding="ascii")
        key = self.image.host_key.read_text(encoding="utf-8")
        (self.directory / "known_hosts").write_text(f"[{ADDRESS}]:{port} {key}", encoding="utf-8")
        usual = emulator.execution(self.image.accelerator, self.image.processor)
        command = emulator.command(
            execution=execution or usual,
            kernel=self.image.kernel,
            initial_file_system=self.image.initial_file_system,
            console=self._console,
            monitor=self._monitor_path,
        )
        command += emulator.disk(self.disk) + emulator.network(ADDRESS, port)
        command += ["-daemonize", "-pidfile", str(self._process_file), *more]
        self._boot_command.write_text(json.dumps(command), encoding="utf-8")
        self._execute([*command, "-loadvm", snapshot] if snapshot else command)

    def _execute(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GuestError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")

    def _second_card(self, member: Membership | None) -> list[str]:
        if member is None:
            return []
        member.write(self.directory)
        return emulator.member(network.GROUP, member.port, member.hardware_address)

    def _join(self, member: Membership) -> None:
        """Make the guest look for its second card, which the snapshot does not know. Raises GuestError."""
        words = [network.CONFIGURATION, member.configuration(), member.address]
        self.call(["sh", "-c", network.JOIN, *words], seconds=RESTORE_SECONDS)

    def _process(self) -> int | None:
        """Return the process id of the guest's emulator, if it is still that process."""
        try:
            process = int(self._process_file.read_text(encoding="ascii"))
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return process if str(self._process_file).encode() in command.split(b"\0") else None

    def _end_process(self) -> None:
        process = self._process()
        if process is None:
            return
        with contextlib.suppress(OSError, MonitorError), Monitor(self._monitor_path) as monitor:
            monitor.quit()
        deadline = time.monotonic() + STOP_SECONDS
        while self.is_running():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _console_tail(self) -> str:
        try:
            text = self._console.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        tail = "\n".join(text.splitlines()[-SERIAL_TAIL_LINES:])
        return f"; its console ends with:\n{tail}" if tail else "; its console is empty"

    @contextlib.contextmanager
    def _ended_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._end_process()
            raise


@contextlib.contextmanager
def running(image: Image, directory: Path) -> Iterator[Guest]:
    """Have a guest for the length of a block. Raises GuestError when it does not start."""
    guest = Guest.start(image, directory)
    try:
        yield guest
    finally:
        guest.stop()


def free_port() -> int:
    """Return a port of the loopback that nobody uses now."""
    with socket.create_server((ADDRESS, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
