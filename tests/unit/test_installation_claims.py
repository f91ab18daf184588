"""An installation is taken off for a run that was killed, and for no other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support import installation, leftovers


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where claims are looked for; nothing else of a killed run is."""
    monkeypatch.setattr(installation, "CLAIMS", tmp_path)
    monkeypatch.setattr(installation, "REMOVE", ("touch", str(tmp_path / "removed")))
    monkeypatch.setattr(leftovers, "cgroup2_mount", lambda: tmp_path / "none")
    monkeypatch.setattr(leftovers, "NAMESPACE_DIRECTORY", tmp_path / "none")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    return tmp_path


def test_a_killed_run_s_is_taken_off(claims: Path) -> None:
    child = os.fork()
    if not child:
        installation.claim()
        os._exit(0)
    os.waitpid(child, 0)
    assert [path.name for path in leftovers.remove_leftovers()] == [f"meshaccel-test-{child}-installation"]
    assert [path.name for path in claims.iterdir()] == ["removed"]


def test_one_of_a_run_that_goes_on_stays(claims: Path) -> None:
    installation.claim()
    assert leftovers.remove_leftovers() == []
    installation.release()
    assert list(claims.iterdir()) == []


def test_an_operator_s_stays(claims: Path) -> None:
    assert leftovers.remove_leftovers() == []
    assert list(claims.iterdir()) == []
