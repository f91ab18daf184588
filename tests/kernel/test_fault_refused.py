"""The kernel refuses a run something in the middle: the error is clear, and the node is as it was."""

from __future__ import annotations

import errno
import itertools
import os
import resource
from functools import partial
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.desired import LARGEST_MAXIMUM_CONNECTIONS
from tests.kernel.fault_calls import Watched, refusable_calls
from tests.kernel.fault_changes import CHANGES, NOTHING, Change, Wish
from tests.kernel.fault_process import FAILED, SUCCEEDED, Ending
from tests.kernel.fault_stage import Case, Stage, new_operator, new_stage, prepared, told
from tests.support.memory_cgroups import memory_cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.fault_state import Seen

pytestmark = pytest.mark.machine
HUGE = Wish(settings={"maximum_connections": LARGEST_MAXIMUM_CONNECTIONS})
#: Enough for Python, not for the hash tables of so many connections.
LITTLE_MEMORY = 64 * 1024 * 1024
#: Standard input, output and error.
FIRST_DESCRIPTORS = 3


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """What all nodes of this file share.

    libbpf asks the kernel once in a process what it has; by the first run that has been answered.
    """
    with new_stage(tmp_path_factory.mktemp("updated")) as made:
        with new_operator(made) as operator:
            operator.ask(Wish())
        yield made


def check_refused(case: Case, before: Seen, ending: Ending, number: int) -> None:
    """The operator was told what the kernel answered, and nothing has changed.

    Once the version before was thrown away it has to be loaded again, and that may be refused as well.
    The operator was told so; then the next run does it.
    """
    assert ending.exit_code == FAILED
    assert os.strerror(number) in ending.error
    if ending.undo_errors:
        assert ending.has_done(("sockops.discard_programs", "sockops.unload"))
        assert all(error in ending.error for error in ending.undo_errors)
        case.look()
        case.operator.ask(case.change.before)
    assert case.look().words() == before.words()


# Some hundred runs.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["first-converge", "update"])
def test_no_memory_for_any_call(stage: Stage, name: str) -> None:
    """Some are answered by another way to do the same, which is as good."""
    with new_operator(stage) as operator, prepared(CHANGES[name], stage, operator) as case:
        before, watched = case.look(), Watched()
        assert case.run(beside=watched.beside).exit_code == SUCCEEDED
        refused = 0
        for call in refusable_calls(watched):
            with told(f"{call}"):
                case.operator.ask(case.change.before)
                ending = case.run(beside=Watched(call.fails("ENOMEM")).beside)
                if ending.exit_code != SUCCEEDED:
                    check_refused(case, before, ending, errno.ENOMEM)
                    refused += 1
        assert refused > len(layout.programs())
        assert case.operator.change(case.change).changed


@pytest.mark.parametrize("name", ["first-converge", "resize"])
def test_too_few_descriptors(stage: Stage, name: str) -> None:
    """With every number of them, until they are enough."""
    with new_operator(stage) as operator, prepared(CHANGES[name], stage, operator) as case:
        before = case.look()
        for descriptors in itertools.count(FIRST_DESCRIPTORS):
            with told(f"{descriptors} descriptors"):
                ending = case.run(prelude=partial(limit_descriptors, descriptors))
                if ending.exit_code == SUCCEEDED:
                    break
                check_refused(case, before, ending, errno.EMFILE)


def limit_descriptors(most: int) -> None:
    """Have this process open no descriptor of this number or higher."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.mark.parametrize("before", [NOTHING, Wish()], ids=["untouched", "converged"])
def test_a_table_larger_than_memory(stage: Stage, before: Wish) -> None:
    """Really refused by the kernel: the run's own cgroup has not that much."""
    with (
        memory_cgroup(LITTLE_MEMORY) as little,
        new_operator(stage) as operator,
        prepared(Change(before, HUGE), stage, operator) as case,
    ):
        seen = case.look()
        ending = case.run(prelude=lambda: little.add(os.getpid()))
        check_refused(case, seen, ending, errno.ENOMEM)
        assert "load sockops" in ending.error
        assert str(LARGEST_MAXIMUM_CONNECTIONS) in ending.error
        assert case.operator.ask(Wish()).changed == (not before.present)
