"""`python -m tests.vm`: builds images, starts and stops guests by name."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.vm.archive import ArchiveUnknownError
from tests.vm.build import DIRECTORY, GUESTS, Builder, BuildError
from tests.vm.guest import ADDRESS, USER, Guest, GuestError
from tests.vm.network import AddressError, Membership, join
from tests.vm.recipe import (
    DEFAULT_KERNEL,
    DEFAULT_VARIANT,
    KERNELS,
    SCENARIO_KERNELS,
    VARIANTS,
    Recipe,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="./run vm-image", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    image = commands.add_parser("image", help="build images that are not there")
    image.add_argument(
        "kernels", nargs="*", choices=[[], *KERNELS], metavar="KERNEL", help=", ".join(KERNELS)
    )
    start = commands.add_parser("start", help="start a guest and print how to log in, as JSON")
    start.add_argument("name")
    start.add_argument("--kernel", default=DEFAULT_KERNEL, choices=KERNELS)
    start.add_argument("--variant", default=DEFAULT_VARIANT, choices=VARIANTS)
    start.add_argument("--network", help="a network of guests to be in, with --address")
    start.add_argument("--address", help="its own address there, such as 10.77.0.1/24")
    for name, what in (
        ("stop", "end a guest and remove its disk"),
        ("reboot", "reboot a guest and wait until its units are started"),
        ("login", "log in, or run a command"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("name")
        if name == "login":
            command.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD")
    copy = commands.add_parser("copy", help="copy a folder's contents into one of a guest's")
    copy.add_argument("name")
    copy.add_argument("source", type=Path)
    copy.add_argument("target")
    commands.add_parser("kernels", help="list the kernels that the scenarios are for")
    options = parser.parse_args(arguments)
    if options.command == "start" and bool(options.network) != bool(options.address):
        parser.error("--network and --address go together")
    try:
        return COMMANDS[options.command](options)
    except (AddressError, ArchiveUnknownError, BuildError, GuestError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1


def build(options: argparse.Namespace) -> int:
    """Build the images of these kernels, by default of one."""
    for name in options.kernels or [DEFAULT_KERNEL]:
        image = Builder(DIRECTORY).provide(Recipe.of(name))
        print(f"{name}: {image.directory}")
    return 0


def start(options: argparse.Namespace) -> int:
    """Start a guest, building its image if it is not there."""
    image = Builder(DIRECTORY).provide(Recipe.of(options.kernel, options.variant))
    guest = Guest.start(image, GUESTS / options.name, membership(options) if options.network else None)
    found = {"address": ADDRESS, "port": guest.port, "user": USER, "options": guest.login_options()}
    print(json.dumps(found))
    return 0


def membership(options: argparse.Namespace) -> Membership:
    """Return the place that a guest is to have in its network. Raises AddressError."""
    others = [Guest.find(path).membership for path in GUESTS.glob("*") if path.name != options.name]
    return join(options.network, options.address, [other for other in others if other])


def list_kernels(_: argparse.Namespace) -> int:
    """Print the names of the kernels that the scenarios are for."""
    print(" ".join(SCENARIO_KERNELS))
    return 0


def stop(options: argparse.Namespace) -> int:
    """End a guest; fine when there is none."""
    _guest(options).stop()
    return 0


def reboot(options: argparse.Namespace) -> int:
    """Reboot a guest, which keeps its address and port; prints what systemd says of the outcome."""
    print(_guest(options).reboot())
    return 0


def copy_folder(options: argparse.Namespace) -> int:
    """Copy a folder's contents into a guest."""
    _guest(options).copy(options.source, options.target)
    return 0


def login(options: argparse.Namespace) -> int:
    """Log in, or run a command there."""
    return subprocess.run([*_guest(options).login_command(), *options.words], check=False).returncode


def _guest(options: argparse.Namespace) -> Guest:
    return Guest.find(GUESTS / options.name)


COMMANDS = {
    "image": build,
    "kernels": list_kernels,
    "copy": copy_folder,
    "login": login,
    "reboot": reboot,
    "start": start,
    "stop": stop,
}

if __name__ == "__main__":
    sys.exit(main())
