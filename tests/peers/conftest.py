"""What every test here needs: tools that are built, and nothing left of a run that was killed."""

from __future__ import annotations

import pytest

from tests.support import mesh_load
from tests.support.leftovers import remove_leftovers


@pytest.fixture(scope="session", autouse=True)
def _built_and_clean() -> None:
    """Build the load generator; take down what a killed run before this one left."""
    remove_leftovers()
    mesh_load.build()
