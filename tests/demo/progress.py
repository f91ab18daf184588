"""What the demonstration is doing right now, for a person who waits."""

from __future__ import annotations

import shutil
import sys
import time

CLEAR_LINE = "\r\033[K"


class Progress:
    """Steps stay on the screen with the time they began at; in a terminal one line below runs along."""

    def __init__(self, steps: int) -> None:
        """Start the clock for so many steps."""
        self.begun = time.monotonic()
        self.in_terminal = sys.stdout.isatty()
        self._steps = steps
        self._step = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begun

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self.say(f"[{self.elapsed:5.1f} s] {self._step}/{self._steps} {title}")

    def running(self, text: str) -> None:
        """Show what the step is at; without a terminal it becomes a line of its own."""
        line = f"[{self.elapsed:5.1f} s]     {text}"
        if not self.in_terminal:
            print(line, flush=True)
            return
        width = shutil.get_terminal_size().columns
        print(f"{CLEAR_LINE}{line[: width - 1]}", end="", flush=True)

    def say(self, text: str) -> None:
        """Print something that stays."""
        print(f"{CLEAR_LINE if self.in_terminal else ''}{text}", flush=True)
