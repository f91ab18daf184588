"""The steps of `./run demo`, one after the other, each undone when the run ends or is ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.demo.accelerator import Accelerator, PlaybookFailed
from tests.demo.environment import describe_machine
from tests.demo.figures import format_bytes, format_seconds
from tests.demo.measurement import Comparison, Schedule, measure
from tests.demo.mesh import Mesh
from tests.demo.progress import Progress
from tests.demo.report import write_report
from tests.demo.results import PlaybookRun, Results, WorkloadResult
from tests.demo.session import Session
from tests.demo.sidecar import PORTS
from tests.demo.table import render_table
from tests.demo.workloads import WORKLOADS
from tests.support.cgroups import TestCgroup

STEPS = 7
MEASURING_ENDS = 210.0
"""Seconds after the start; what is left of four minutes is for taking everything down."""

WARM_UP = Schedule(rounds=1, seconds=1, title="warm-up")

LOOK_AROUND = """
The accelerated mesh stays up, and its twin on plain TCP. To look around, as root:
  meshaccel status
  meshaccel off sockops          everything back to TCP at once; `meshaccel on sockops` again
  nsenter --net={client} nft list ruleset
  nsenter --net={client} ss -tnp
Load it from the opted-in cgroup of the client's application:
  sh -c 'echo $$ > {cgroup}/cgroup.procs;
    exec nsenter --net={client} wrk -c 64 -d 5s http://{address}:{port}/'
Envoy's admin page is 127.0.0.1:{admin} inside {client}
and inside {server}.
Take it all down with: ./run demo --down
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    before_rounds: int
    rounds: int
    run_seconds: int


@dataclass(frozen=True)
class Meshes:
    """The two meshes; `on` is the one that gets accelerated."""

    off: Mesh
    on: Mesh


class Demonstration:
    """One run of all steps."""

    def __init__(self, plan: Plan, directory: Path, progress: Progress, session: Session) -> None:
        """Prepare; results and the programs' files go to `directory`."""
        self._plan = plan
        self._directory = directory
        self._progress = progress
        self._session = session
        self._started = dt.datetime.now(tz=dt.UTC)

    def run(self, hold: Callable[[], None] | None) -> bool:
        """Do everything; `hold`, when given, is called before anything is taken down.

        Returns whether all requests were answered, bytes were redirected and nothing was left behind.
        """
        with contextlib.ExitStack() as resources:
            meshes = self._start_meshes(resources)
            with self._accelerator(meshes.on) as accelerator:
                results = self._compare(meshes, accelerator)
                self._show(results)
                if hold is not None:
                    self._progress.say(_look_around(meshes.on))
                    hold()
                self._progress.step("take the accelerator off: playbooks/remove.yml")
            left = accelerator.left_behind()
            self._say_left(left)
            self._progress.step("take both meshes down")
        return not left and not results.errors and results.bytes_sent.redirected > 0

    def _compare(self, meshes: Meshes, accelerator: Accelerator) -> Results:
        environment = describe_machine()
        before = self._measure_before(meshes)
        first, second = self._converge(accelerator)
        bytes_before = accelerator.byte_counts()
        after = self._measure_after(meshes)
        return Results(
            started=self._started.strftime("%Y-%m-%d %H:%M UTC"),
            environment=environment,
            run_seconds=self._plan.run_seconds,
            workloads=tuple(WorkloadResult(item, before[item.name], after[item.name]) for item in WORKLOADS),
            converge=first,
            second_converge=second,
            bytes_sent=accelerator.byte_counts() - bytes_before,
        )

    def _start_meshes(self, resources: contextlib.ExitStack) -> Meshes:
        self._progress.step("start two equal meshes: 2 pods, 2 Envoys, nginx, Redis and an echo server each")
        parent = resources.enter_context(TestCgroup("demo"))
        meshes = []
        for name in ("kernel", "accelerated"):
            shutil.rmtree(self._directory / name, ignore_errors=True)
            self._progress.running(f"starting {name}")
            meshes.append(resources.enter_context(Mesh(name, self._directory, parent)))
        return Meshes(*meshes)

    def _measure_before(self, meshes: Meshes) -> dict[str, Comparison]:
        self._progress.step("measure both on plain TCP: how far apart two equal meshes are on this machine")
        self._measure(meshes, WARM_UP)
        return self._measure(meshes, Schedule(self._plan.before_rounds, self._plan.run_seconds))

    def _accelerator(self, mesh: Mesh) -> Accelerator:
        return Accelerator(
            mesh.cgroups, self._directory, self._progress.running, self._session.note_accelerated
        )

    def _converge(self, accelerator: Accelerator) -> tuple[PlaybookRun, PlaybookRun]:
        self._progress.step(f"accelerate one: {accelerator.command_line}")
        first = accelerator.converge()
        self._say_recap(first)
        self._progress.step("the same again: nothing to change")
        second = accelerator.converge()
        self._say_recap(second)
        if second.changed:
            raise PlaybookFailed(f"the second run should have had nothing to change, but: {second.recap}")
        return first, second

    def _measure_after(self, meshes: Meshes) -> dict[str, Comparison]:
        self._progress.step("measure again in pairs, one right after the other")
        deadline = time.monotonic() - self._progress.elapsed + MEASURING_ENDS
        return self._measure(meshes, Schedule(self._plan.rounds, self._plan.run_seconds, deadline))

    def _measure(self, meshes: Meshes, schedule: Schedule) -> dict[str, Comparison]:
        return measure(meshes.off, meshes.on, WORKLOADS, schedule, self._progress.running)

    def _show(self, results: Results) -> None:
        figures = self._directory / "results.json"
        report = self._directory / "report.html"
        figures.write_text(json.dumps(results.as_json(), indent=2) + "\n", encoding="utf-8")
        write_report(results, report)
        sent = results.bytes_sent
        self._progress.say(f"\n{render_table(results.workloads, emphasis=self._progress.in_terminal)}")
        self._progress.say(
            f"Redirected: {sent.share:.1%} of the bytes the accelerated mesh sent"
            f" ({format_bytes(sent.redirected)}; {format_bytes(sent.tcp)} went by TCP)\n"
            f"Failed requests: {results.errors}\n"
            f"Report:     {report}\n"
            f"Figures:    {figures}\n"
        )

    def _say_recap(self, run: PlaybookRun) -> None:
        self._progress.say(f"          {run.recap}\n          took {format_seconds(run.seconds)}")

    def _say_left(self, left: list[str]) -> None:
        what = ", ".join(left) if left else "no file, no pin, no BPF program or map"
        self._progress.say(f"          left of it: {what}")


def _look_around(mesh: Mesh) -> str:
    return LOOK_AROUND.format(
        client=mesh.client.namespace.path,
        server=mesh.server.namespace.path,
        cgroup=mesh.application_cgroup.path,
        address=mesh.server.address4,
        port=PORTS.http_port,
        admin=PORTS.admin_port,
    )
