"""The reload of a TencentOS kernel's ip_vs, on an imitation of its files; no such kernel was to be had."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf import tencent
from meshaccel.accelerators.ipvs_bpf.tencent import MODULE, OPTIONS_FILE, Modules, Observed
from meshaccel.errors import ApplyFailed, NotOurs, Unsupported
from meshaccel.system.tools import ToolFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshaccel.model import Action, Json, Plan

SERVICES_HEAD = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
"""
SERVICE = "TCP  0A000001:0050 rr  \n  -> 0A010005:1F90      Masq    1      0          0         \n"
CONNECTIONS_HEAD = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
CONNECTION = "TCP C0A80101 9C40 0A000001 0050 0A010005 1F90 ESTABLISHED     899\n"
SCHEDULERS = ("ip_vs_rr", "ip_vs_wrr")


class Kernel:
    """A TencentOS kernel's files, and what modprobe and rmmod do to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.bool_parameter = False
        for name in (MODULE, *SCHEDULERS):
            self.load(name)
        self.calls.clear()

    @property
    def modules(self) -> Modules:
        return Modules(self.load, self.unload)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="ascii")

    def load(self, name: str) -> None:
        self.calls.append(f"modprobe {name}")
        if (self.root / "sys/module" / name).exists():
            return
        self.write(f"sys/module/{name}/refcnt", "0\n")
        if name == MODULE:
            options = self.root / OPTIONS_FILE
            mode = "1" if options.exists() and "ip_vs mode=1" in options.read_text(encoding="ascii") else "0"
            self.write(
                "sys/module/ip_vs/parameters/mode", ("NY"[int(mode)] if self.bool_parameter else mode) + "\n"
            )
            (self.root / "sys/module/ip_vs/holders").mkdir()
            self.write("proc/net/ip_vs", SERVICES_HEAD)
            self.write("proc/net/ip_vs_conn", CONNECTIONS_HEAD)
            self.write("proc/net/ip_vs_bpf_id", "0:0:0:0\n")
        else:
            (self.root / "sys/module/ip_vs/holders" / name).symlink_to(f"../../{name}")

    def unload(self, name: str) -> None:
        self.calls.append(f"rmmod {name}")
        holders = self.root / f"sys/module/{name}/holders"
        in_use = int((self.root / f"sys/module/{name}/refcnt").read_text(encoding="ascii"))
        if in_use or (holders.exists() and any(holders.iterdir())):
            raise ToolFailed(wanted=f"rmmod {name}", found="Module is in use", remedy="see lsmod")
        shutil.rmtree(self.root / f"sys/module/{name}")
        if name != MODULE:
            (self.root / "sys/module/ip_vs/holders" / name).unlink()

    def files(self) -> dict[str, str]:
        """Return what there is, to compare with later."""
        return {
            str(path.relative_to(self.root)): path.read_text(encoding="ascii")
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def plan(kernel: Kernel, *, bpf: bool, reload: bool = True) -> Plan:
    return tencent.make_plan(bpf, reload, tencent.observe(str(kernel.root)))


def make(kernel: Kernel, *, bpf: bool, reload: bool = True) -> bool:
    """Converge; returns whether anything changed. engine checks that the second plan is empty."""
    return engine.converge(
        lambda: tencent.observe(str(kernel.root)),
        lambda observed: tencent.make_plan(bpf, reload, observed),
        tencent.handlers(str(kernel.root), kernel.modules),
    ).changed


RELOAD = [
    *(f"rmmod {name}" for name in (*SCHEDULERS, MODULE)),
    *(f"modprobe {name}" for name in (MODULE, *SCHEDULERS)),
]


@pytest.mark.parametrize("bool_parameter", [False, True])
def test_there_and_back(kernel: Kernel, bool_parameter: bool) -> None:
    kernel.bool_parameter = bool_parameter
    before = tencent.observe(str(kernel.root))
    assert not before.active
    assert make(kernel, bpf=True)
    assert kernel.calls == RELOAD
    now = tencent.observe(str(kernel.root))
    assert (now.mode, now.holders) == (1, dict.fromkeys(SCHEDULERS, 0))
    assert (kernel.root / OPTIONS_FILE).read_text(encoding="ascii").endswith("options ip_vs mode=1\n")
    assert not make(kernel, bpf=True, reload=False)
    kernel.calls.clear()
    assert make(kernel, bpf=False)
    assert kernel.calls == RELOAD
    assert tencent.observe(str(kernel.root)) == before


@pytest.mark.parametrize("bpf", [True, False])
def test_other_kernels_are_left_alone(tmp_path: Path, bpf: bool) -> None:
    kernel = Kernel(tmp_path)
    shutil.rmtree(tmp_path / "sys/module/ip_vs/parameters")
    assert tencent.observe(str(tmp_path)) == Observed()
    assert not make(kernel, bpf=bpf)


def test_an_online_change_is_refused_with_the_reason_and_the_way(kernel: Kernel) -> None:
    before = kernel.files()
    with pytest.raises(
        Unsupported, match=r"mode=0, which only loading it anew.*ipvs_bpf_tencent_reload: true"
    ):
        make(kernel, bpf=True, reload=False)
    assert kernel.files() == before
    assert kernel.calls == []


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("proc/net/ip_vs", SERVICES_HEAD + SERVICE * 2, "2 services"),
        ("proc/net/ip_vs_conn", CONNECTIONS_HEAD + CONNECTION, "1 connections"),
        ("sys/module/ip_vs_rr/refcnt", "3\n", "3 users of ip_vs_rr"),
        ("proc/net/ip_vs_bpf_id", "4711:5:6:7\n", r"programs handed over \(4711:5:6:7\)"),
    ],
)
def test_a_node_that_is_not_drained_is_refused(kernel: Kernel, path: str, content: str, words: str) -> None:
    kernel.write(path, content)
    before = kernel.files()
    with pytest.raises(Unsupported, match=words):
        make(kernel, bpf=True)
    assert kernel.files() == before
    assert kernel.calls == []


def test_a_service_that_comes_between_plan_and_change_stops_it(kernel: Kernel) -> None:
    steps = plan(kernel, bpf=True)
    kernel.write("proc/net/ip_vs", SERVICES_HEAD + SERVICE)
    before = kernel.files()
    with pytest.raises(ApplyFailed, match="1 services") as failed:
        engine.apply(steps, tencent.handlers(str(kernel.root), kernel.modules))
    assert failed.value.undo_errors == ()
    assert kernel.files() == before
    assert kernel.calls == []


@pytest.mark.parametrize("bpf", [True, False])
@pytest.mark.parametrize("moment", ["before", "in"])
@pytest.mark.parametrize("number", range(9))
def test_a_fault_at_any_step_leads_back(kernel: Kernel, number: int, moment: str, bpf: bool) -> None:
    if not bpf:
        make(kernel, bpf=True)
    before = kernel.files()
    steps = plan(kernel, bpf=bpf)
    assert len(steps) == 9
    handlers = tencent.handlers(str(kernel.root), kernel.modules)
    broken = steps[number]

    def stop(action: Action) -> None:
        if action is broken:
            raise OSError("the fault")

    def half_done(arguments: Mapping[str, Json]) -> None:
        handlers[broken.kind](arguments)
        if arguments is broken.arguments:
            raise OSError("the fault")

    faults = {
        "before": (handlers, stop),
        "in": ({**handlers, broken.kind: half_done}, engine.ignore),
    }
    with pytest.raises(ApplyFailed, match="the fault") as failed:
        engine.apply(steps, *faults[moment])
    assert failed.value.undo_errors == ()
    assert kernel.files() == before


def test_a_module_that_is_used_after_all_leads_back(kernel: Kernel) -> None:
    """A service of another namespace that came at the last moment holds its scheduler."""
    steps = plan(kernel, bpf=True)
    kernel.write("sys/module/ip_vs/refcnt", "1\n")
    before = kernel.files()
    with pytest.raises(ApplyFailed, match="Module is in use") as failed:
        engine.apply(steps, tencent.handlers(str(kernel.root), kernel.modules))
    assert failed.value.undo_errors == ()
    assert kernel.files() == before


def test_a_mode_that_another_file_sets_is_found_and_undone(kernel: Kernel) -> None:
    before = kernel.files()
    steps = plan(kernel, bpf=True)

    def load(name: str) -> None:
        kernel.load(name)
        kernel.write(tencent.PARAMETER, "0\n")

    with pytest.raises(ApplyFailed, match="mode 0; another file may set it") as failed:
        engine.apply(steps, tencent.handlers(str(kernel.root), Modules(load, kernel.unload)))
    assert failed.value.undo_errors == ()
    assert kernel.files() == before


def test_only_the_file_is_missing_or_left_over(kernel: Kernel) -> None:
    make(kernel, bpf=True)
    (kernel.root / OPTIONS_FILE).unlink()
    kernel.calls.clear()
    kernel.write("proc/net/ip_vs", SERVICES_HEAD + SERVICE)
    assert make(kernel, bpf=True, reload=False)
    assert (kernel.root / OPTIONS_FILE).exists()
    assert kernel.calls == []


def test_the_file_goes_while_the_module_is_not_loaded(kernel: Kernel) -> None:
    make(kernel, bpf=True)
    shutil.rmtree(kernel.root / "sys/module")
    kernel.calls.clear()
    assert not make(kernel, bpf=True)
    assert make(kernel, bpf=False, reload=False)
    assert not (kernel.root / OPTIONS_FILE).exists()
    assert kernel.calls == []


def test_somebody_else_s_file_of_our_name_stays(kernel: Kernel) -> None:
    kernel.write(OPTIONS_FILE, "options ip_vs conn_tab_bits=20\n")
    with pytest.raises(NotOurs, match=r"modprobe\.d/meshaccel-ipvs\.conf"):
        make(kernel, bpf=True)


def test_a_mode_with_a_shared_namespace_is_bpf_too(kernel: Kernel) -> None:
    kernel.write("sys/module/ip_vs/parameters/mode", "2\n")
    assert tencent.observe(str(kernel.root)).active
    kernel.write("sys/module/ip_vs/parameters/mode", "off\n")
    with pytest.raises(Unsupported, match="'off'"):
        tencent.observe(str(kernel.root))
