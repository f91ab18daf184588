"""Instructions by the guest's clock; runs in a guest that counts (tests/vm/emulator.py, counting)."""

from __future__ import annotations

import ctypes
import mmap
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.vm.emulator import NANOSECONDS_PER_INSTRUCTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.results import Figures

ArmKind = TypeVar("ArmKind")

NANOSECONDS_PER_SECOND = 1_000_000_000
INSTRUCTIONS_PER_SECOND = NANOSECONDS_PER_SECOND // NANOSECONDS_PER_INSTRUCTION
LIMIT = 0.01
"""What a count may be away from the truth, as a part of it."""
START_IDLE_HUNDREDTHS = 2
"""For how many hundredths of a second the processor may have nothing to do in a run.

A client enters a cgroup before it begins, for which the kernel waits until nobody uses the old membership.
"""
LOOP_TURNS = 10_000_000
LOOP_INSTRUCTIONS = 2 * LOOP_TURNS
UPTIME = Path("/proc/uptime")
#: mov ecx, LOOP_TURNS; again: dec ecx; jnz again; ret
LOOP = b"\xb9" + LOOP_TURNS.to_bytes(4, "little") + b"\xff\xc9\x75\xfc\xc3"


class NotCountedError(RuntimeError):
    """The clock of this machine does not tell instructions."""


def check_clock() -> None:
    """Count a loop of known length; raises NotCountedError when the clock tells something else."""
    counted = count_loop()
    if abs(counted / LOOP_INSTRUCTIONS - 1) > LIMIT:
        raise NotCountedError(
            f"a loop of {LOOP_INSTRUCTIONS} instructions was counted as {counted}: "
            "this is no guest that counts, or its clock is another than its processor's"
        )


def count_loop() -> int:
    """Run a loop of LOOP_INSTRUCTIONS instructions and return how many the clock tells."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(LOOP)
        code = ctypes.c_char.from_buffer(memory)
        run = ctypes.CFUNCTYPE(None)(ctypes.addressof(code))
        before = time.monotonic_ns()
        run()
        spent = time.monotonic_ns() - before
        del code
    return spent // NANOSECONDS_PER_INSTRUCTION


def instruction_cost(
    measure: Callable[[ArmKind, float], Figures],
) -> Callable[[ArmKind, float], Figures]:
    """Return a measurement of instructions an operation, by the rate that another one finds.

    They are all that the processor did from the first operation to the last: kernel, client, server, and
    whatever else ran. Raises NotCountedError when the processor had nothing to do meanwhile, since then the
    clock has moved without instructions: for longer than START_IDLE_HUNDREDTHS.
    """

    def measure_cost(arm: ArmKind, seconds: float) -> Figures:
        before = idle_hundredths()
        figures = measure(arm, seconds)
        idle = idle_hundredths() - before
        if idle > START_IDLE_HUNDREDTHS:
            raise NotCountedError(f"the processor had nothing to do for {idle / 100} s of {seconds} s")
        return {"instructions": INSTRUCTIONS_PER_SECOND / figures["qps"]}

    return measure_cost


def idle_hundredths() -> int:
    """Return for how long the processor has had nothing to do since the boot, in hundredths of a second."""
    return int(UPTIME.read_text(encoding="ascii").split()[1].replace(".", ""))
