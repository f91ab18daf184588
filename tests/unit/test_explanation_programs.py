"""What /proc tells of programs and their sockets, read from a folder that looks like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.explanation import programs
from meshaccel.accelerators.sockops.explanation.model import Program
from meshaccel.accelerators.sockops.explanation.words import Use
from meshaccel.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterable

Add = Callable[..., Path]
CONFIGURATION = "defaults\n    mode tcp\n    option splice-auto\n"


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Return what adds a process, with what its descriptors are, and returns its folder."""
    monkeypatch.setattr(processes, "PROCESSES", str(tmp_path))

    def add(number: int, executable: str, files: Iterable[str], arguments: Iterable[str] = ()) -> Path:
        folder = tmp_path / str(number)
        (folder / "fd").mkdir(parents=True)
        (folder / "task").mkdir()
        (folder / "exe").symlink_to(executable)
        (folder / "root").symlink_to(tmp_path)
        (folder / "cwd").symlink_to(tmp_path)
        (folder / "cmdline").write_bytes("\0".join([executable, *arguments, ""]).encode())
        for descriptor, target in enumerate(files):
            (folder / "fd" / str(descriptor)).symlink_to(target)
        return folder

    return add


def test_each_program_that_has_a_socket_open_is_found(process: Add) -> None:
    process(7, "/usr/bin/envoy", ["/dev/null", "socket:[41]", "socket:[42]", "socket:[42]"])
    process(8, "/usr/bin/envoy (deleted)", ["socket:[42]"])
    process(9, "/usr/bin/other", ["socket:[43]", "pipe:[42]"])
    envoys = (Program(7, "envoy"), Program(8, "envoy"))
    found = programs.owners([41, 42, 44])
    assert set(found) == {41, 42}
    assert found[41] == (envoys[0],)
    assert set(found[42]) == set(envoys)


def test_a_process_that_ends_meanwhile_has_nothing_open(process: Add, tmp_path: Path) -> None:
    (tmp_path / "6").mkdir()
    process(7, "/usr/bin/envoy", ["socket:[41]"])
    assert [each.process_id for each in programs.owners([41])[41]] == [7]


@pytest.mark.parametrize(
    ("name", "configuration", "uses"),
    [
        ("haproxy", CONFIGURATION, {Use.SPLICE}),
        ("haproxy", CONFIGURATION.replace("option", "# option"), set()),
        ("haproxy", CONFIGURATION.replace("option", "no option"), set()),
        ("envoy", CONFIGURATION, set()),
        ("systemd-socket-proxyd", "", {Use.SPLICE}),
    ],
)
def test_a_proxy_splices_if_it_always_does_or_its_configuration_says_so(
    process: Add, tmp_path: Path, name: str, configuration: str, uses: set[Use]
) -> None:
    (tmp_path / "haproxy.cfg").write_text(configuration)
    for number, path in ((7, "/haproxy.cfg"), (8, "haproxy.cfg")):
        process(number, f"/usr/sbin/{name}", ["socket:[41]"], ["-W", "-f", path])
    assert [each.uses for each in programs.owners([41])[41]] == [uses, uses]


def test_haproxys_configuration_may_be_a_folder_or_gone(process: Add, tmp_path: Path) -> None:
    (tmp_path / "haproxy.d").mkdir()
    (tmp_path / "haproxy.d" / "20-web.cfg").write_text(CONFIGURATION)
    process(7, "/usr/sbin/haproxy", ["socket:[41]"], ["-f", "/haproxy.d"])
    process(8, "/usr/sbin/haproxy", ["socket:[42]"], ["-f", "/gone.cfg"])
    found = programs.owners([41, 42])
    assert found[41][0].uses == {Use.SPLICE}
    assert not found[42][0].uses


@pytest.mark.parametrize(
    ("pipes", "uses"),
    [
        ([1, 1], set()),
        ([1, 1, 2], set()),
        ([1, 2, 3, 4], set()),
        ([1, 1, 2, 2], {Use.PERHAPS_SPLICE}),
    ],
)
def test_two_pipes_to_oneself_are_a_hint_of_splice(process: Add, pipes: list[int], uses: set[Use]) -> None:
    process(7, "/usr/bin/proxy", ["socket:[41]", *(f"pipe:[{number}]" for number in pipes)])
    assert programs.owners([41])[41][0].uses == uses


def test_the_socket_at_which_a_thread_waits_for_all_is_found(
    process: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.uname", lambda: type("Names", (), {"machine": "x86_64"}))
    folder = process(7, "/usr/bin/reader", ["socket:[41]", "socket:[42]"])
    for thread, call in (("7", "45 0x1 0x7f00 0x3e8 0x100 0x0 0x0 0x7ffe 0x7f01"), ("8", "running")):
        (folder / "task" / thread).mkdir()
        (folder / "task" / thread / "syscall").write_text(call)
    assert programs.owners([41])[41][0].waits_for_all == {42}


@pytest.mark.parametrize(
    ("call", "machine", "descriptor"),
    [
        ("45 0x5 0x7f00 0x3e8 0x100 0x0 0x0 0x7ffe 0x7f01", "x86_64", 5),
        ("45 0x5 0x7f00 0x3e8 0x140 0x0 0x0 0x7ffe 0x7f01", "x86_64", 5),
        ("45 0x5 0x7f00 0x100 0x40 0x0 0x0 0x7ffe 0x7f01", "x86_64", None),
        ("47 0x6 0x7f00 0x100 0x0 0x0 0x0 0x7ffe 0x7f01", "x86_64", 6),
        ("47 0x6 0x7f00 0x0 0x100 0x0 0x0 0x7ffe 0x7f01", "x86_64", None),
        ("207 0x5 0x7f00 0x3e8 0x100 0x0 0x0 0x7ffe 0x7f01", "aarch64", 5),
        ("45 0x5 0x7f00 0x3e8 0x100 0x0 0x0 0x7ffe 0x7f01", "aarch64", None),
        ("45 0x5 0x7f00 0x3e8 0x100 0x0 0x0 0x7ffe 0x7f01", "ppc64le", None),
        ("running", "x86_64", None),
        ("-1 0x7ffe 0x7f01", "x86_64", None),
        ("", "x86_64", None),
    ],
)
def test_only_a_receiving_call_with_the_flag_waits_for_all(
    call: str, machine: str, descriptor: int | None
) -> None:
    assert programs.waited_for(call, machine) == descriptor
