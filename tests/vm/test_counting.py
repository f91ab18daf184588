"""A real guest that counts instructions: a loop of known length, and one short comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.counting import benchmarks, command
from tests.support import mesh_load
from tests.vm.build import DIRECTORY, Builder
from tests.vm.recipe import DEFAULT_KERNEL, KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.guest import Guest

SECONDS = 0.05
PAIRS = 2


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest of the default kernel that counts, with the load in it."""
    mesh_load.build()
    image = Builder(DIRECTORY).provide(Recipe(KERNELS[DEFAULT_KERNEL]))
    with command.counting_guest(image) as started:
        yield started


@pytest.mark.timeout(600)
def test_counts_are_those_of_the_processor_and_sockops_takes_fewer(guest: Guest) -> None:
    """The guest refuses by itself when a loop of known length is not counted right."""
    benchmark = benchmarks.BY_NAME["sockops-instructions"]
    case = command.count(guest, benchmark, PAIRS, SECONDS)["cases"][0]
    assert case["pairs"] == PAIRS
    assert 10_000 < case["arms"]["on"]["instructions"] < case["arms"]["off"]["instructions"] < 100_000
    assert case["ratio"]["instructions"] < 0.9
