"""The lab, and kube-proxy's state on its director."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ipvs.lab import Lab
from tests.support import mesh_load
from tests.support.leftovers import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _built_and_clean() -> None:
    """Build the load generator; take down what a killed run before this one left."""
    remove_leftovers()
    mesh_load.build()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A client, a director and two backends, with nothing on the director yet."""
    with Lab.running() as made:
        yield made
