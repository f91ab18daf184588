"""Capabilities asked of the running kernel: the answers, and that nothing is left of the asking."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.bpf import assembly, attach, libbpf
from meshaccel.capabilities import NAMES, SOCKOPS_NEEDS, accounting, node, probe, programs, require
from meshaccel.capabilities.catalogue import Check, Probe
from meshaccel.capabilities.run import ask
from meshaccel.capabilities.session import Session
from meshaccel.model import Answer, Capability
from meshaccel.paths import NodePaths
from meshaccel.system import temporary_cgroup
from tests.support import bpftool
from tests.support.accelerator import accelerated
from tests.support.bpffs import own_bpffs
from tests.support.cgroups import TestCgroup, cgroup2_mount
from tests.support.processes import HERE, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20.0
#: Prints the answers of a probe as JSON.
SCRIPT = """
import json
from meshaccel import capabilities
print(json.dumps({name: str(found) for name, found in capabilities.probe().items()}))
"""


def ask_this(check: Check) -> Capability:
    """Return the running kernel's answer to a probe that is not in the catalogue."""
    with Session(NodePaths()) as session:
        return ask(Probe("feature", "5.10", check), session)


def probe_elsewhere(placement: Placement = HERE, *, wrapper: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the answers that a process of its own gets."""
    command = [*wrapper, "env", f"PYTHONPATH={ROOT / 'module_utils'}", sys.executable, "-c", SCRIPT]
    answers: dict[str, str] = json.loads(run(command, placement))
    return answers


def probe_cgroups() -> list[Path]:
    """Return the cgroups that this process's probes have right now."""
    return list(cgroup2_mount().glob(f"**/{temporary_cgroup.NAME_PREFIX}{os.getpid()}"))


def assert_objects_gone_since(before: bpftool.BpfObjects) -> None:
    """Wait for the kernel to free the probe's BPF objects, which it does after a grace period of RCU."""
    deadline = time.monotonic() + SECONDS
    while not bpftool.snapshot().new_since(before).of_names(["meshaccel_probe"]).is_empty():
        assert time.monotonic() < deadline, "objects of the probe are left"
        time.sleep(0.05)


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_this_kernel_has_all_that_sockops_needs() -> None:
    found = probe()

    assert tuple(found) == NAMES
    require(found, SOCKOPS_NEEDS, "sockops")


def test_only_what_is_asked_for_is_probed() -> None:
    assert list(probe(["map_sockhash", "bpf_syscall"])) == ["bpf_syscall", "map_sockhash"]


def test_nothing_is_left() -> None:
    probe()  # opens libbpf, for good
    before, files = bpftool.snapshot(), open_files()
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)

    probe()

    assert_objects_gone_since(before)
    assert open_files() == files
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == limits
    assert not probe_cgroups()


def test_nothing_is_left_of_a_probe_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, path: str) -> int:
        assert Path(path).is_dir()
        raise libbpf.BpfError(22, "attach")

    probe()
    before, files = bpftool.snapshot(), open_files()
    monkeypatch.setattr(attach, "link_cgroup", refuse)
    monkeypatch.setattr(accounting, "receive_memory", lambda _: 0)

    found = probe(["cgroup_link", "sockmap_receive_accounting"])

    assert str(found["cgroup_link"]) == "no: attach: Invalid argument"
    assert found["sockmap_receive_accounting"].answer is Answer.NO
    assert not probe_cgroups()
    assert open_files() == files
    assert_objects_gone_since(before)


def test_an_interrupted_probe_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int, path: str) -> int:
        assert Path(path).is_dir()
        raise KeyboardInterrupt

    probe()
    files = open_files()
    monkeypatch.setattr(attach, "link_cgroup", interrupt)

    with pytest.raises(KeyboardInterrupt):
        probe()

    assert not probe_cgroups()
    assert open_files() == files


def test_a_helper_that_the_program_type_lacks_is_no_with_the_verifiers_reason() -> None:
    found = ask_this(programs.load(programs.CONNECTION, programs.redirect_hash))

    assert found.answer is Answer.NO
    assert "msg_redirect_hash" in found.reason


def test_an_instruction_that_no_kernel_has_is_no() -> None:
    found = ask_this(programs.load(programs.MESSAGE, lambda _: b"\xff" + bytes(7) + programs.PASS))

    assert found.answer is Answer.NO
    assert "unknown opcode" in found.reason


def test_a_function_that_the_kernel_lacks_is_no() -> None:
    def check(session: Session) -> None:
        session.function_id("bpf_function_of_no_kernel")

    assert str(ask_this(check)) == "no: /sys/kernel/btf/vmlinux has no bpf_function_of_no_kernel"


class TestBpffs:
    def test_a_read_only_one_is_no_with_the_remedy(self) -> None:
        with own_bpffs() as path:
            run(["mount", "-o", "remount,ro", str(path)])
            found = probe(["bpffs"], NodePaths(bpffs=str(path)))["bpffs"]

        assert str(found) == f"no: the one at {path} is read-only: mount -o remount,rw {path}"

    def test_one_that_is_mounted_is_yes(self) -> None:
        with own_bpffs() as path:
            assert str(probe(["bpffs"], NodePaths(bpffs=str(path)))["bpffs"]) == "yes"

    def test_one_that_could_be_mounted_is_yes_and_is_not_mounted(self, tmp_path: Path) -> None:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").count(" bpf ")
        found = probe(["bpffs"], NodePaths(bpffs=str(tmp_path)))["bpffs"]

        assert str(found) == "yes"
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
        assert mounts == Path("/proc/self/mounts").read_text(encoding="utf-8").count(" bpf ")


@pytest.mark.parametrize(
    ("file_system", "answer"),
    [
        (b"no-such-file-system", "no: not mounted, and the kernel has no such file system"),
        (b"bpf", "yes"),
    ],
)
def test_a_file_system_is_asked_for_without_mounting_it(file_system: bytes, answer: str) -> None:

    assert str(ask_this(lambda _: node.prepare_mount(file_system))) == answer


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """Return what a root without capabilities is told."""
    return probe_elsewhere(wrapper=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))


class TestWithoutPrivileges:
    def test_the_call_is_refused_and_says_which_capability_is_missing(self, answers: dict[str, str]) -> None:
        assert answers["bpf_syscall"].startswith("no: not permitted: this process lacks CAP_BPF")

    def test_what_could_not_be_asked_is_unknown_rather_than_missing(self, answers: dict[str, str]) -> None:
        found = probe()
        of_bpf = [name for name in NAMES if name.startswith(("map_", "program_", "sock_ops_", "sk_msg_"))]

        # What the kernel does not have at all can be read from its BTF without asking.
        asked = [name for name in of_bpf if str(found[name]) == "yes"]
        assert set(SOCKOPS_NEEDS) & set(of_bpf) <= set(asked)
        assert {name: answers[name].partition(":")[0] for name in asked} == dict.fromkeys(asked, "unknown")

    def test_what_needs_no_privilege_is_answered_all_the_same(self, answers: dict[str, str]) -> None:
        assert answers["libbpf"] == answers["kernel_btf"] == answers["cgroup2"] == "yes"


class TestReceiveAccounting:
    """Whether redirected bytes are charged to the receiver, shown with bytes."""

    def test_bytes_that_go_by_tcp_prove_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounting, "redirect", lambda _: programs.PASS)

        found = probe(["sockmap_receive_accounting"])["sockmap_receive_accounting"]

        assert str(found).startswith("unknown: the bytes went by TCP")

    def test_bytes_that_are_dropped_are_not_taken_for_charged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounting, "redirect", lambda _: assembly.leave(0))

        found = probe(["sockmap_receive_accounting"])["sockmap_receive_accounting"]

        assert found.answer is not Answer.YES

    def test_a_kernel_that_does_not_charge_is_no(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounting, "receive_memory", lambda _: 0)

        found = probe(["sockmap_receive_accounting"])["sockmap_receive_accounting"]

        assert "any amount of memory" in str(found)
        assert found.answer is Answer.NO

    def test_is_answered_also_where_sockops_holds_the_probes_own_sockets(self) -> None:
        with TestCgroup("capabilities") as cgroup, accelerated([cgroup.relative_path]) as sockops:
            answers = probe_elsewhere(Placement(cgroup=cgroup))
            counters = sockops.status()["counters"]

        assert counters["connections_paired"] == 1
        assert answers == {name: str(answer) for name, answer in probe().items()}
        assert {answers[name] for name in SOCKOPS_NEEDS} == {"yes"}


class TestAbandonedCgroups:
    @pytest.fixture
    def parent(self) -> Iterator[Path]:
        with TestCgroup("parent") as cgroup:
            yield cgroup.path

    def test_those_of_dead_processes_go_with_the_next_probe(self, parent: Path) -> None:
        finished = subprocess.Popen(["true"])
        finished.wait()
        left = parent / f"{temporary_cgroup.NAME_PREFIX}{finished.pid}"
        left.mkdir()

        with temporary_cgroup.temporary_cgroup(str(parent)):
            assert not left.exists()

    def test_those_of_living_processes_and_of_others_stay(self, parent: Path) -> None:
        others = [parent / f"{temporary_cgroup.NAME_PREFIX}1", parent / "meshaccel-probe-of-mine"]
        for other in others:
            other.mkdir()

        with temporary_cgroup.temporary_cgroup(str(parent)):
            assert all(other.is_dir() for other in others)

    def test_what_still_runs_in_one_is_killed(self, parent: Path) -> None:
        with temporary_cgroup.temporary_cgroup(str(parent)) as path:
            sleeper: subprocess.Popen[Any] = subprocess.Popen(
                ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && echo ready && exec sleep 600', "sh", path],
                stdout=subprocess.PIPE,
            )
            assert sleeper.stdout is not None
            with sleeper.stdout as output:
                assert output.readline() == b"ready\n"

        assert sleeper.wait() == -9
        assert not Path(path).exists()
