# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Puts a measurement together: cgroups, processes, the order of runs, the report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ..errors import InvalidInput
from ..model import Json
from ..system import cgroups
from ..system.temporary_cgroup import temporary_cgroup
from . import exchange, figures
from .exchange import ProbeFailed
from .figures import Figures, Run
from .processes import Worker, termination_as_exit, worker
from .settings import ENDPOINT, OFF, ON, Settings

#: Beyond a run's own time: forking, entering the cgroup, sending the result.
GRACE_SECONDS = 5.0
#: An arm that is not accelerated may show this much: bytes in flight at the end of a run.
NEGLIGIBLE_SHARE = 0.01

#: Returns the counters of what accelerates the cgroup, or None when nothing does.
Counters = Callable[[], "Mapping[str, int] | None"]


def measure(
    settings: Settings, hierarchy: cgroups.Hierarchy | None = None, counters: Counters | None = None
) -> dict[str, Json]:
    """Measures and returns the report as plain data.

    Takes at most ``duration`` and a few seconds for processes. Raises InvalidInput
    for a cgroup that cannot be compared, ProbeFailed when the endpoint fails; no
    process and no cgroup stays in either case.
    """
    runs: list[tuple[str, Figures]] = []
    counted: dict[str, int] | None = None
    with termination_as_exit(), places(settings, hierarchy) as cgroup_of:
        for arm in settings.order():
            before = counters() if counters and arm == ON else None
            runs.append((arm, run_once(settings, cgroup_of[arm]).figures()))
            after = counters() if counters and arm == ON else None
            if before is not None and after is not None:
                counted = add(counted or {}, after, before)
    return report(runs, counted)


@contextmanager
def places(settings: Settings, hierarchy: cgroups.Hierarchy | None) -> Iterator[dict[str, str | None]]:
    """Makes the cgroups of the arms meanwhile; yields where each arm runs."""
    if settings.cgroup is None:
        yield {ENDPOINT: None}
        return
    tree = hierarchy or cgroups.hierarchy()
    parents = {ON: accelerated_parent(tree, settings.cgroup), OFF: tree.mount}
    with contextlib.ExitStack() as stack:
        yield {arm: stack.enter_context(made_below(parent)) for arm, parent in parents.items()}


def accelerated_parent(tree: cgroups.Hierarchy, cgroup: str) -> str:
    """Returns the cgroup's directory; raises InvalidInput when there is nothing to compare."""
    path = tree.absolute(cgroup)
    if tree.identify(path) is None:
        raise InvalidInput(
            wanted=f"the cgroup {cgroup}",
            found=f"no directory {path}",
            remedy="start what runs in it first, or name its parent cgroup",
        )
    if path == tree.mount:
        raise InvalidInput(
            wanted="a cgroup below the root",
            found="the root cgroup, where the arm without acceleration has to run",
            remedy="name the cgroup that is accelerated",
        )
    return path


@contextmanager
def made_below(parent: str) -> Iterator[str]:
    """Makes a cgroup of the probe's own; raises ProbeFailed when the kernel refuses."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(temporary_cgroup(parent))
        except OSError as error:
            raise ProbeFailed(
                wanted=f"a cgroup for the probe below {parent}",
                found=str(error),
                remedy="run as root where the cgroup2 mount is writable, below the limits on child cgroups",
            ) from error
        yield path


def run_once(settings: Settings, cgroup: str | None) -> Run:
    """Runs the client once, and the echo server where the endpoint is the probe's own."""
    with contextlib.ExitStack() as stack:
        port = settings.port
        if settings.address is None:
            port = stack.enter_context(echo_server(cgroup)).receive(int, GRACE_SECONDS)
        load = settings.load(port)
        client = stack.enter_context(worker("the client", cgroup, lambda _: exchange.ask(load)))
        return client.receive(Run, load.seconds + GRACE_SECONDS)


@contextmanager
def echo_server(cgroup: str | None) -> Iterator[Worker]:
    """Runs an echo server meanwhile; the first thing it sends is its port."""

    def work(send: Callable[[object], None]) -> None:
        with exchange.listen() as listener:
            send(listener.getsockname()[1])
            exchange.serve(listener)

    with worker("the echo server", cgroup, work) as server:
        yield server


def add(total: Mapping[str, int], after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Adds what counters counted between two readings to a total."""
    return {name: total.get(name, 0) + after[name] - before.get(name, 0) for name in after}


def report(runs: list[tuple[str, Figures]], counted: Mapping[str, int] | None) -> dict[str, Json]:
    """Returns medians for each arm, their ratio and every run.

    Raises InvalidInput when the arm that must not be accelerated was.
    """
    names = sorted({arm for arm, _ in runs})
    arms = {name: figures.medians(found for arm, found in runs if arm == name) for name in names}
    result: dict[str, Json] = {
        "arms": arms,
        "runs": [{"arm": arm, **found} for arm, found in runs],
        "redirected": arms.get(ON, arms.get(ENDPOINT, {}))["redirected_share"] > NEGLIGIBLE_SHARE,
        "counters": counted,
    }
    if ON in arms:
        check_off_arm(arms[OFF])
        result["ratio"] = figures.ratio(arms[ON], arms[OFF])
    return result


def check_off_arm(off: Figures) -> None:
    """Raises InvalidInput when the arm without acceleration was accelerated."""
    redirected = off["redirected_share"]
    if redirected > NEGLIGIBLE_SHARE:
        raise InvalidInput(
            wanted="an arm that is not accelerated, in a child of the root cgroup",
            found=f"{redirected:.0%} of its bytes redirected: the root cgroup is accelerated too",
            remedy="opt in the cgroups of services instead of the whole node",
        )
