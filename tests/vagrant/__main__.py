"""`python -m tests.vagrant`: makes boxes, starts and stops machines of the Vagrantfile by name."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ProcessError, termination_as_exit
from tests.vagrant import libvirt
from tests.vagrant.box import Box
from tests.vagrant.machine import BOX_VARIABLE, DRIVER_VARIABLE, Machine, VagrantError, provide_box
from tests.vm import build
from tests.vm.archive import ArchiveUnknownError
from tests.vm.guest import GuestError
from tests.vm.recipe import DEFAULT_KERNEL, KERNELS

DIRECTORY = Path(__file__).resolve().parents[2] / "build" / "vagrant"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="./run vagrant-box", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    box = commands.add_parser(
        "box", help="make a box of each kernel, if it is not there, and add it to Vagrant"
    )
    box.add_argument("kernels", nargs="*", choices=[[], *KERNELS], metavar="KERNEL", help=", ".join(KERNELS))
    start = commands.add_parser("start", help="start a machine and print how to log in, as JSON")
    start.add_argument("name")
    start.add_argument(
        "--kernel",
        default=DEFAULT_KERNEL,
        choices=KERNELS,
        help=f"of the box, where {BOX_VARIABLE} names none",
    )
    commands.add_parser("stop", help="end a machine and remove its disk").add_argument("name")
    libvirt_ = commands.add_parser("with-libvirt", help="run a command while libvirt's daemon runs")
    libvirt_.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD")
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except (ArchiveUnknownError, build.BuildError, GuestError, ProcessError, VagrantError) as error:
        print(f"vagrant: {error}", file=sys.stderr)
        return 1


def make_boxes(options: argparse.Namespace) -> int:
    """Make the boxes of these kernels, by default of one."""
    for kernel in options.kernels or [DEFAULT_KERNEL]:
        variables = " ".join(f"{name}={value}" for name, value in environment_of(kernel).items())
        print(f"export {variables}")
    return 0


def start(options: argparse.Namespace) -> int:
    """Start a machine, from the box that the environment names or that of a kernel."""
    environment = {} if os.environ.get(BOX_VARIABLE) else environment_of(options.kernel)
    print(json.dumps(machine(options).start(environment)))
    return 0


def environment_of(kernel: str) -> dict[str, str]:
    """Return the Vagrantfile's variables for a kernel's box, which is made and known to Vagrant."""
    box = Box(kernel, DIRECTORY)
    image = build.Builder(build.DIRECTORY).provide(box.recipe)
    provide_box(box.name, box.provide(image))
    found = "kvm" if image.uses_kvm else "qemu"
    return {BOX_VARIABLE: box.name, DRIVER_VARIABLE: os.environ.get(DRIVER_VARIABLE) or found}


def stop(options: argparse.Namespace) -> int:
    """End a machine; fine when there is none."""
    machine(options).stop()
    return 0


def machine(options: argparse.Namespace) -> Machine:
    """Return the machine that is meant."""
    return Machine(options.name, DIRECTORY / "machines" / options.name)


def with_libvirt(options: argparse.Namespace) -> int:
    """Run a command while libvirt's daemon runs; returns its exit status."""
    with termination_as_exit(), libvirt.provided():
        return subprocess.run(options.words, check=False).returncode


COMMANDS = {
    "box": make_boxes,
    "start": start,
    "stop": stop,
    "with-libvirt": with_libvirt,
}

if __name__ == "__main__":
    sys.exit(main())
