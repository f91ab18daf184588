"""QEMU's command line for a guest. A snapshot is of the same machine only, so there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = "qemu-system-x86_64"
KVM = "kvm"
#: All processors at once, each in a thread of this machine.
EMULATION = "tcg,thread=multi"
KVM_PROCESSOR = "host"
MEMORY_MEGABYTES = 1024
PROCESSORS = 2
#: Five-level page tables and nested virtualisation cost an emulator time and no test needs them.
PROCESSOR = "max,-svm,la57=off"
#: QEMU 7.2 spoils the flags at cmpxchg16b without a lock now and then, and a kernel whose allocator uses it
#: (6.12: seen) panics. Kernels from 7 on allocate in another way, but need it for what BPF allocates.
PROCESSOR_WITHOUT_CMPXCHG16B = f"{PROCESSOR},-cx16"
#: What makes the kernel slower, or look longer, under emulation.
KERNEL_ARGUMENTS = (
    "console=ttyS0 panic=-1 quiet net.ifnames=0 mitigations=off nokaslr audit=0 tsc=reliable no_timer_check"
)
#: Has the initial file system say TRIAL_PASSED and end the machine; guest_files/init knows both.
TRIAL_ARGUMENT = "guest.trial"
TRIAL_PASSED = "guest: booted"
#: What the guest's clock moves on by with every instruction: QEMU takes the power of two.
NANOSECONDS_PER_INSTRUCTION = 2
#: A snapshot is of this machine: another one needs another image.
MACHINE = (str(PROCESSORS), str(MEMORY_MEGABYTES), KERNEL_ARGUMENTS)


def execution(accelerator: str, processor: str) -> list[str]:
    """Return how a guest's instructions are run: by KVM, or by emulation of that processor."""
    model = KVM_PROCESSOR if accelerator == KVM else processor
    return ["-accel", accelerator, "-cpu", model, "-smp", str(PROCESSORS)]


def counting(processor: str) -> list[str]:
    """Return how they are run to be counted: the clock of the one processor moves with each.

    It follows real time only while idle.
    """
    count = f"shift={NANOSECONDS_PER_INSTRUCTION.bit_length() - 1},sleep=on"
    return ["-accel", "tcg,thread=single", "-cpu", processor, "-smp", "1", "-icount", count]


def command(
    *, execution: Sequence[str], kernel: Path, initial_file_system: Path, console: Path, monitor: Path
) -> list[str]:
    """Return the machine without devices: what it boots, its console and its monitor."""
    machine = _machine(execution, kernel, initial_file_system, KERNEL_ARGUMENTS)
    return [*machine, "-serial", f"file:{console}", "-qmp", f"unix:{monitor},server=on,wait=off"]


def trial(kernel: Path, initial_file_system: Path) -> list[str]:
    """Return a machine with KVM and no disk, which says TRIAL_PASSED on standard output and ends."""
    arguments = f"{KERNEL_ARGUMENTS} {TRIAL_ARGUMENT}"
    machine = _machine(execution(KVM, KVM_PROCESSOR), kernel, initial_file_system, arguments)
    return [*machine, "-serial", "stdio", "-no-reboot"]


def _machine(execution: Sequence[str], kernel: Path, initial_file_system: Path, arguments: str) -> list[str]:
    machine = [PROGRAM, *execution, "-M", "q35", "-m", str(MEMORY_MEGABYTES)]
    boot = ["-kernel", str(kernel), "-initrd", str(initial_file_system), "-append", arguments]
    return [*machine, *boot, "-display", "none", "-nodefaults"]


def disk(path: Path) -> list[str]:
    """Return the guest's one disk. What a crash of this machine would lose is of no use anyway."""
    drive = f"file={path},if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]


def network(address: str, port: int) -> list[str]:
    """Return a network that leads from that port to the guest's ssh server, and nowhere else."""
    forward = f"hostfwd=tcp:{address}:{port}-10.0.2.15:22"
    return [
        *("-netdev", f"user,id=network,restrict=on,{forward}"),
        *("-device", "virtio-net-pci,netdev=network,romfile="),
    ]


def member(group: str, port: int, hardware_address: str) -> list[str]:
    """Return a second card, on the Ethernet segment of the guests at that multicast group and port."""
    return [
        *("-netdev", f"socket,id=guests,mcast={group}:{port},localaddr=127.0.0.1"),
        *("-device", f"virtio-net-pci,netdev=guests,mac={hardware_address},romfile="),
    ]
