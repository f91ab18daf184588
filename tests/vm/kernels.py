"""`python -m tests.vm.kernels`: writes docs/kernels.md by what the kernels of guests answer.

And by how the kernel tests go there.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel.capabilities import NEEDS
from tests.support.processes import termination_as_exit
from tests.vm import guest_tests
from tests.vm.build import DIRECTORY, GUESTS, Builder
from tests.vm.guest import GuestError, running
from tests.vm.guest_tests import ALL, CORE
from tests.vm.recipe import KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.image import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kernels.md"
PACKAGE = ROOT / "module_utils"
GUEST_PACKAGE = "/srv/module_utils"
#: Prints the answers of every probe, with their reasons, as JSON.
SCRIPT = """
import json
from meshaccel import capabilities
print(json.dumps({name: str(found) for name, found in capabilities.probe().items()}))
"""
YES = "yes"
NOT_RUN = "not run"
LINE_CHARACTERS = 110
#: What the tests are of.
TESTED = "sockops"
#: As uname -v has it; uname -r of Debian tells the series only.
VERSION = re.compile(r"\bDebian ([0-9.]+)")
HEAD = """# Kernels

Written by `./run kernels`: what the probes of `node_capabilities` answer on kernels of Debian, each in a
[virtual machine](virtual-machines.md), and how many of the tests below passed there. Those that need more
speed or programs than a guest has are left out.
"""


@dataclass(frozen=True)
class Answers:
    """What one kernel answers: `yes`, or another word with the reason, by capability."""

    version: str
    found: dict[str, str]
    tests: str

    def supports(self, accelerator: str) -> bool:
        """Whether all that an accelerator needs is there."""
        return all(self.found[name] == YES for name in NEEDS[accelerator])


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every kernel and write the page."""
    parser = argparse.ArgumentParser(prog="./run kernels", description="Write docs/kernels.md.")
    parser.add_argument("--all", action="store_true", help="all tests that a guest can take, not their core")
    tests = ALL if parser.parse_args(arguments).all else CORE
    guest_tests.build()
    builder = Builder(DIRECTORY)
    with termination_as_exit():
        answers = [ask(builder.provide(Recipe(kernel)), tests) for kernel in KERNELS.values()]
    PAGE.write_text(page(answers, tests), encoding="utf-8")
    print(PAGE)


def ask(image: Image, tests: Sequence[str]) -> Answers:
    """Start a guest, have its kernel answer and run the tests. Raises GuestError."""
    with running(image, GUESTS / "kernels") as guest:
        guest.copy(PACKAGE, GUEST_PACKAGE)
        version = VERSION.search(guest.call(["uname", "-v"]))
        said = guest.call(["env", f"PYTHONPATH={GUEST_PACKAGE}", "python3", "-c", SCRIPT])
        if version is None:
            raise GuestError(f"{image.directory}: no kernel of Debian")
        answers = Answers(version[1], json.loads(said), NOT_RUN)
        if answers.supports(TESTED):
            answers = replace(answers, tests=str(guest_tests.run(guest, tests)))
    return answers


def page(answers: Sequence[Answers], tests: Sequence[str]) -> str:
    """Return the page: a table, which tests were run, and the reason of each answer that is not yes."""
    columns = sorted(answers, key=lambda kernel: [int(part) for part in kernel.version.split(".")])
    rows = [["", *(kernel.version for kernel in columns)]]
    rows.append(["---"] * len(rows[0]))
    rows += [
        [f"**{accelerator}**", *(YES if kernel.supports(accelerator) else "no" for kernel in columns)]
        for accelerator in NEEDS
    ]
    names = columns[0].found
    rows.append(["`tests/kernel`", *(kernel.tests for kernel in columns)])
    rows += [[f"`{name}`", *(word(kernel.found[name]) for kernel in columns)] for name in names]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    reasons = [
        f"* {kernel.version}, `{name}`: {answer}"
        for kernel in columns
        for name, answer in kernel.found.items()
        if answer != YES
    ]
    run = f"The tests: {', '.join(f'`{name}`' for name in tests)}."
    return "\n".join([HEAD, table, "", *textwrap.wrap(run, LINE_CHARACTERS), "", *reasons, ""])


def word(answer: str) -> str:
    """Return an answer without its reason."""
    return answer.partition(":")[0]


if __name__ == "__main__":
    main()
