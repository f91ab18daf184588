"""CPython's own tests of its networking modules, run by its own runner where a pod is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import Placement, run

if TYPE_CHECKING:
    from tests.peers.differences import Outcomes

LIBRARIES = Path("/usr/lib")
TESTS = "python3.*/test/test_asyncio"
#: What moves bytes over TCP, the longest first. Some of them are gone from later versions of Python.
GROUPS = {
    "TLS": ("test_ssl", "test_asyncio.test_ssl", "test_asyncio.test_sslproto", "test_ftplib", "test_poplib"),
    "TCP": (
        "test_socket", "test_asyncore", "test_asynchat", "test_socketserver", "test_select", "test_epoll",
        "test_asyncio.test_base_events", "test_asyncio.test_buffered_proto", "test_asyncio.test_events",
        "test_asyncio.test_sendfile", "test_asyncio.test_server", "test_asyncio.test_sock_lowlevel",
        "test_asyncio.test_streams", "test_httplib", "test_httpservers", "test_urllib2_localnet",
        "test_docxmlrpc", "test_wsgiref", "test_smtplib", "test_nntplib", "test_telnetlib",
    ),
}  # fmt: skip
#: Address families and protocols that are not TCP; VSOCK hangs where a hypervisor offers it.
OTHER_PROTOCOLS = ("*VSOCK*", "*UDP*", "*SCTP*", "*CAN*", "*Unix*", "*Alg*")
JOBS = 4
"""Most of these tests wait most of the time."""
HANG_SECONDS = 90
SECONDS = 300.0
FAILED_OR_SKIPPED = ("failure", "error", "skipped")
#: The runner's exit status 2 says that tests failed, which its report tells in full.
RUN = '"$@" || [ $? -eq 2 ]'


@dataclass(frozen=True)
class Suite:
    """The distribution's interpreter that has its test suite, and where that is."""

    interpreter: str
    tests: Path

    @classmethod
    def find(cls) -> Suite:
        """Return the newest; raises FileNotFoundError when the distribution's package is not installed."""
        found = sorted(LIBRARIES.glob(TESTS), key=_version)
        if not found:
            raise FileNotFoundError(f"no {LIBRARIES}/{TESTS}: install libpython3.X-testsuite")
        library = found[-1].parent.parent
        return cls(f"/usr/bin/{library.name}", library / "test")

    def run(self, group: str, place: Placement, directory: Path) -> Outcomes:
        """Run a group of modules, as far as this version of Python has them; return how each case went.

        `directory`, which it makes, keeps the report and all that was written. Raises ProcessError when
        the runner ends otherwise than by telling which tests failed, or takes too long.
        """
        directory.mkdir()
        report = directory / "report.xml"
        words = ["--verbose", "--use=network", f"-j{JOBS}", f"--timeout={HANG_SECONDS}"]
        words += [f"--junit-xml={report}", *(f"--ignore={pattern}" for pattern in OTHER_PROTOCOLS)]
        modules = [name for name in GROUPS[group] if self._has(name)]
        command = ["sh", "-c", RUN, "sh", self.interpreter, "-m", "test", *words, *modules]
        output = run(command, place, timeout=SECONDS)
        (directory / "output").write_text(output, encoding="utf-8")
        return outcomes(report)

    def _has(self, module: str) -> bool:
        return (self.tests / (module.replace(".", "/") + ".py")).exists()


def outcomes(report: Path) -> Outcomes:
    """Return how each case of a report went; one that has subtests, each way that one of them went."""
    ways: dict[str, set[str]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by the runner a moment ago
        name = case.attrib["name"]
        ways.setdefault(name, set()).update(child.tag for child in case if child.tag in FAILED_OR_SKIPPED)
    return {name: " and ".join(sorted(found)) or "passed" for name, found in ways.items()}


def _version(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.parent.parent.name)))
