"""Whether this machine's processor can run guests itself, by KVM. Only a guest that boots shows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.vm import emulator

KVM_DEVICE = Path("/dev/kvm")
TRIAL_SECONDS = 10.0
"""A second is enough where KVM works; where it only seems to, a boot takes minutes and then fails."""


def choose(kernel: Path, initial_file_system: Path) -> str:
    """Return what is to run guests, as QEMU names it: KVM if one boots with it within seconds."""
    return emulator.KVM if boots_with_kvm(kernel, initial_file_system) else emulator.EMULATION


def boots_with_kvm(kernel: Path, initial_file_system: Path) -> bool:
    """Whether a guest without a disk gets as far as our own first program, within TRIAL_SECONDS."""
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return False
    try:
        done = subprocess.run(
            emulator.trial(kernel, initial_file_system),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return emulator.TRIAL_PASSED.encode() in done.stdout
