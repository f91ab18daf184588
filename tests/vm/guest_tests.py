"""`python -m tests.vm.guest_tests SUITE KERNEL [WORD...]`: tests on the kernel of a guest.

Nothing is compiled or fetched there: objects, load generator and pytest are those of this machine. Further
words go to pytest; without any it runs the suite.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel import compiled
from tests.support import mesh_load, prebuilt
from tests.support.processes import termination_as_exit
from tests.vm.build import DIRECTORY, GUESTS, Builder
from tests.vm.guest import GuestError, running
from tests.vm.recipe import KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("build/bpf", "build/bench", "build/kernel-tests")
CONTENTS = ("pyproject.toml", "library", "module_utils", "tests", *BUILT)
#: pytest with what it needs, and the part of Ansible that modules import; Python alone, so of any version.
DISTRIBUTIONS = ("pytest", "pytest-timeout", "pluggy", "iniconfig", "packaging", "pygments", "ansible-core")
GUEST_PACKAGES = "/srv/packages"
GUEST_REPOSITORY = "/srv/meshaccel"
GUEST_RESULT = "/srv/result.xml"
#: Where kernels differ most, and what must hold on each: minutes, while all of the tests take hours.
CORE = tuple(
    f"tests/kernel/test_{name}"
    for name in (
        "capabilities.py",
        "pairing.py::test_pairs_from_pod_to_pod",
        "pairing.py::test_pairs_through_redirect_of_what_arrives",
        "order.py::test_data_as_the_last_packet_of_the_handshake",
        "slots.py::test_every_end_has_a_slot_until_it_is_closed",
        "relay_repetition.py",
        "relay_netcat.py",
        "removal.py",
    )
)
#: Of tests/ipvs, what every run has: some four minutes of a quarter of an hour.
IPVS_CORE = tuple(
    f"tests/ipvs/test_{name}"
    for name in (
        "paths.py::test_services_work_and_conntrack_sees_none_of_it",
        "paths.py::test_backends_behind_every_kind_of_device",
        "paths.py::test_datagrams_of_every_size",
        "paths.py::test_a_backend_without_a_listener_is_told_at_once",
        "services.py::test_services_of_every_kind_are_as_ipvsadm_shows_them",
        "services.py::test_services_of_somebody_else_are_left_alone_until_they_are_purged",
        "services.py::test_services_of_another_namespace_hide_none_of_ours",
        "surroundings.py",
        "switching.py::test_short_and_long_connections_outlive_two_switches_there_and_back[some]",
        "switching.py::test_datagrams_outlive_two_switches_there_and_back",
    )
)
ALL = ("tests/kernel",)
#: The words for pytest that are meant by a name.
SUITES: dict[str, tuple[str, ...]] = {
    "kernel": CORE,
    # Only here: tests/ipvs is no part of pytest's own `testpaths`, since few machines have IPVS.
    "ipvs": IPVS_CORE,
}
#: Left out: what needs more speed or more programs than a guest has.
SELECTION = "not machine"
#: For one test; under emulation all takes ten to twenty times as long.
TEST_SECONDS = 300
SECONDS = 3600.0
"""For all of them."""
#: pytest's exit status when it got to its end: all passed, some did not.
ENDED = (0, 1)
#: How pytest counts, in JUnit's XML, tests that did not pass; a skipped one was not had.
NOT_PASSED = ("failures", "errors", "skipped")


@dataclass(frozen=True)
class Outcome:
    """How many tests there were, and how many of them did not pass."""

    tests: int
    failed: int

    def __str__(self) -> str:
        passed = f"{self.tests - self.failed} passed"
        return f"{passed}, {self.failed} failed" if self.failed else passed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a suite on one kernel; returns an exit status."""
    suite, name, *words = sys.argv[1:] if arguments is None else arguments
    tests = words or SUITES[suite]
    image = Builder(DIRECTORY).provide(Recipe(KERNELS[name]))
    build()
    # Of a name of its own: what a killed run left is ended by the next.
    with termination_as_exit(), running(image, GUESTS / f"{suite}-tests-{name}") as guest:
        outcome = run(guest, tests)
    print(f"tests/{suite} on Linux {name}: {outcome}")
    return 1 if outcome.failed or not outcome.tests else 0


def build() -> None:
    """Compile here what the tests load and start there."""
    mesh_load.build()
    compiled.everything()


def run(guest: Guest, words: Sequence[str] = ALL) -> Outcome:
    """Run tests in a guest and show their output; `words` are pytest's. Raises GuestError."""
    guest.copy(ROOT, GUEST_REPOSITORY, CONTENTS)
    guest.copy(packages_directory(), GUEST_PACKAGES, package_names())
    environment = [f"PYTHONPATH={GUEST_PACKAGES}", f"{prebuilt.VARIABLE}=1"]
    limits = ["-o", f"timeout={TEST_SECONDS}", "-o", f"faulthandler_timeout={TEST_SECONDS - 10}"]
    pytest = ["python3", "-m", "pytest", "-m", SELECTION, f"--junitxml={GUEST_RESULT}"]
    command = ["env", f"--chdir={GUEST_REPOSITORY}", *environment, *pytest, *limits, *words]
    status = guest.show(command, seconds=SECONDS)
    if status not in ENDED:
        raise GuestError(f"pytest ended with {status}, before its last test")
    return read_outcome(guest.call(["cat", GUEST_RESULT]))


def read_outcome(result: str) -> Outcome:
    """Return what pytest wrote as JUnit's XML."""
    suites = list(ET.fromstring(result).iter("testsuite"))  # noqa: S314 - written a moment ago
    tests = sum(int(suite.attrib["tests"]) for suite in suites)
    return Outcome(tests, sum(int(suite.attrib[kind]) for suite in suites for kind in NOT_PASSED))


def packages_directory() -> Path:
    """Return where the Python packages of this environment lie."""
    return Path(str(metadata.distribution(DISTRIBUTIONS[0]).locate_file("")))


def package_names() -> list[str]:
    """Return the files and folders there that make up the distributions, without their commands."""
    files = [file for name in DISTRIBUTIONS for file in metadata.distribution(name).files or ()]
    return sorted({file.parts[0] for file in files} - {"..", "__pycache__"})


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuestError as error:
        sys.exit(f"vm: {error}")
