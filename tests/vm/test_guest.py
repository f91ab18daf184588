"""A real guest: started, rebooted, ended; and what is said of one that cannot be had."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run
from tests.vm import acceleration, emulator
from tests.vm import guest as guest_module
from tests.vm.build import DIRECTORY, Builder
from tests.vm.guest import Guest, GuestError, running
from tests.vm.image import Image
from tests.vm.recipe import DEFAULT_KERNEL, KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK_SECONDS = 30
SHORT_SECONDS = 15.0
EMULATED_TRIAL_SECONDS = 60.0


@pytest.fixture(scope="module")
def image() -> Image:
    """The default image, built now if it is not there."""
    return Builder(DIRECTORY).provide(Recipe(KERNELS[DEFAULT_KERNEL]))


@pytest.fixture
def guest(image: Image, tmp_path: Path) -> Iterator[Guest]:
    """A guest that runs."""
    with running(image, tmp_path / "guest") as started:
        yield started
    assert emulators_of(tmp_path) == []


@pytest.fixture
def broken(image: Image, tmp_path: Path) -> Image:
    """A copy of the image, to be damaged."""
    return Image(Path(shutil.copytree(image.directory, tmp_path / "image")))


def emulators_of(directory: Path) -> list[str]:
    """Return the command lines of the emulators that have files there."""
    return [line for line in run(["ps", "-eo", "args"]).splitlines() if str(directory) in line]


@pytest.mark.timeout(600)
def test_a_guest_from_its_snapshot_is_a_node_of_its_own_and_boots_again(guest: Guest) -> None:
    assert guest.call(["uname", "-r"]).startswith(DEFAULT_KERNEL)
    assert abs(int(guest.call(["date", "+%s"])) - time.time()) < CLOCK_SECONDS
    guest.call(["touch", "/srv/written"])
    assert guest.reboot() == "running"
    guest.call(["test", "-e", "/srv/written"])
    with pytest.raises(GuestError, match="exit status 7"):
        guest.call(["sh", "-c", "exit 7"])
    with pytest.raises(GuestError, match="not finished after 1 s"):
        guest.call(["sleep", "60"], seconds=1)


@pytest.mark.timeout(600)
def test_the_guest_reaches_nothing_outside(guest: Guest) -> None:
    """QEMU's network has this machine's loopback at an address of its own, where a server waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        address = f"http://10.0.2.2:{listener.getsockname()[1]}/"
        with pytest.raises(GuestError):
            guest.call(["curl", "--silent", "--max-time", "3", address])
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_what_is_booted_to_try_kvm_tells_when_it_has_booted(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By emulation here, since KVM may not be had: the same machine otherwise."""
    monkeypatch.setattr(acceleration, "KVM_DEVICE", image.kernel)
    monkeypatch.setattr(acceleration, "TRIAL_SECONDS", EMULATED_TRIAL_SECONDS)
    monkeypatch.setattr(emulator, "KVM", emulator.EMULATION)
    monkeypatch.setattr(emulator, "KVM_PROCESSOR", image.processor)
    assert acceleration.boots_with_kvm(image.kernel, image.initial_file_system)


def test_a_broken_kernel_is_an_error_and_no_process_is_left(broken: Image, tmp_path: Path) -> None:
    broken.kernel.write_bytes(b"no kernel")
    with pytest.raises(GuestError, match=r"qemu-system-x86_64 ended with 1: .*kernel"):
        Guest.start(broken, tmp_path / "guest")
    assert emulators_of(tmp_path) == []


@pytest.mark.timeout(600)
def test_a_guest_that_never_answers_is_ended_and_its_console_told(
    broken: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_module, "BOOT_SECONDS", SHORT_SECONDS)
    broken.initial_file_system.write_bytes(b"no file system")
    with pytest.raises(GuestError, match=r"(?s)cannot be logged in to after 15 s; its console .*panic"):
        Guest.take_snapshot(broken)
    assert emulators_of(tmp_path) == []
