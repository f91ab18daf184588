"""Processes of a test: put in a cgroup and a namespace before they start, and gone when it ends.

A socket belongs to the cgroup its process was in when the socket was made, so a process has to be
in its cgroup before the program itself runs. Standard tools in front of the program do that: a
shell enters the cgroup, nsenter the network namespace, setpriv changes the user. Each of them
replaces itself by the next, so the process id stays the program's own.

`ip netns exec` is not used: it mounts a new /sys, which hides bpffs and the cgroups.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from tests.support.directories import kept_directory, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

POLL_SECONDS = 0.02
TAIL_LINES = 40
TCP_LISTEN = "0A"
ENTER_CGROUP = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


class HasPath(Protocol):
    """Something with a place in a file system: a cgroup directory or a namespace file."""

    @property
    def path(self) -> Path: ...


class ProcessError(RuntimeError):
    """A program ended with an error, ended too early or did not become ready in time."""


@dataclass(frozen=True)
class Placement:
    """Where a program runs; what is None stays as it is in the calling process."""

    namespace: HasPath | None = None
    cgroup: HasPath | None = None
    user_id: int | None = None

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command line that enters this place and then becomes `command`."""
        wrapped: list[str] = []
        if self.cgroup is not None:
            wrapped += ["sh", "-c", ENTER_CGROUP, str(self.cgroup.path)]
        if self.namespace is not None:
            wrapped += ["nsenter", f"--net={self.namespace.path}", "--"]
        wrapped += ["setpriv", "--pdeathsig", "KILL"]
        if self.user_id is not None:
            identity = str(self.user_id)
            wrapped += ["--reuid", identity, "--regid", identity, "--clear-groups"]
        return [*wrapped, "--", *command]


HERE = Placement()


def run(
    command: Sequence[str],
    placement: Placement = HERE,
    *,
    standard_input: str | None = None,
    timeout: float = 60.0,
) -> str:
    """Run a program to its end and return its standard output.

    Raises ProcessError when it exits with an error or takes longer than `timeout` seconds.
    """
    try:
        completed = subprocess.run(
            placement.wrap(command),
            input=standard_input,
            stdin=subprocess.DEVNULL if standard_input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProcessError(f"{' '.join(command)}: not finished after {timeout} s") from error
    if completed.returncode != 0:
        raise ProcessError(
            f"{' '.join(command)}: exit status {completed.returncode}\n"
            f"{last_lines(completed.stdout + completed.stderr)}"
        )
    return completed.stdout


class ManagedProcess:
    """A program in the background, started on entering the context and ended on leaving it.

    Standard output and standard error go to files of their own, so that a program may write as much
    as it likes; the end of both is shown in every ProcessError. The process dies with the thread
    that started it, even when that is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        placement: Placement = HERE,
        *,
        environment: Mapping[str, str] | None = None,
        log_directory: Path | None = None,
        stop_seconds: float = 5.0,
    ) -> None:
        """Prepare `command`; `environment` is added to the caller's, nothing runs yet.

        Logs are removed with the process unless `log_directory` names a place to keep them.
        """
        self.command = tuple(command)
        self.placement = placement
        self._environment = dict(environment or {})
        self._log_directory = log_directory
        self._stop_seconds = stop_seconds
        self._resources = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._directory = self._make_log_directory(resources)
            output = resources.enter_context(self.output_path.open("wb"))
            errors = resources.enter_context(self.error_path.open("wb"))
            self._process = subprocess.Popen(
                self.placement.wrap(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
            resources.callback(self.terminate)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def _make_log_directory(self, resources: contextlib.ExitStack) -> Path:
        label = Path(self.command[0]).name
        if self._log_directory is None:
            return Path(resources.enter_context(temporary_directory(label)))
        self._log_directory.mkdir(parents=True, exist_ok=True)
        return Path(kept_directory(label, self._log_directory))

    @property
    def output_path(self) -> Path:
        """The file that holds the program's standard output."""
        return self._logs() / "stdout"

    @property
    def error_path(self) -> Path:
        """The file that holds the program's standard error."""
        return self._logs() / "stderr"

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._started().pid

    def is_running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._started().poll() is None

    def wait(self, timeout: float) -> str:
        """Wait for the program's end and return its standard output.

        Raises ProcessError on an error exit or when `timeout` seconds have passed.
        """
        try:
            status = self._started().wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise self.failure(f"not finished after {timeout} s") from error
        if status != 0:
            raise self.failure(f"exit status {status}")
        return self.output_path.read_text(encoding="utf-8")

    def wait_for_port(self, port: int, timeout: float = 10.0) -> None:
        """Wait until a TCP socket listens on `port` in the program's network namespace.

        The kernel's table is read rather than a connection made: a server under test must see no
        connection but those of the test. Raises ProcessError when the program ends or
        `timeout` seconds pass before.
        """
        self.wait_until(lambda: port in listening_ports(self.pid), f"port {port}", timeout)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `condition` holds; raises ProcessError naming `what` when it does not."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.is_running():
                raise self.failure(f"ended before {what} was ready")
            if time.monotonic() > deadline:
                raise self.failure(f"{what} not ready after {timeout} s")
            time.sleep(POLL_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self._started().send_signal(number)

    def terminate(self) -> None:
        """End the program and everything it started in its session: SIGTERM first, then SIGKILL."""
        process = self._started()
        self._signal_session(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._stop_seconds)
        self._signal_session(signal.SIGKILL)
        process.wait()

    def failure(self, reason: str) -> ProcessError:
        """Return the error to raise for `reason`, with the end of what the program wrote."""
        text = "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in (self.output_path, self.error_path)
        )
        return ProcessError(f"{' '.join(self.command)}: {reason}\n{last_lines(text)}")

    def _signal_session(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.command[0]}: not started, use it as a context manager")
        return self._process

    def _logs(self) -> Path:
        if self._directory is None:
            raise RuntimeError(f"{self.command[0]}: not started, use it as a context manager")
        return self._directory


def listening_ports(process_id: int) -> frozenset[int]:
    """Return the TCP ports, IPv4 and IPv6, listened on in the network namespace of a process."""
    ports: set[int] = set()
    for table in ("tcp", "tcp6"):
        # The process may end at any time, and a kernel may lack IPv6.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = Path(f"/proc/{process_id}/net/{table}").read_text(encoding="ascii")
            rows = (line.split() for line in text.splitlines()[1:])
            ports.update(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == TCP_LISTEN)
    return frozenset(ports)


def last_lines(text: str) -> str:
    """Return the end of a log, as much as is useful in an error message."""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that the contexts inside clean up."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    caught = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, leave) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
