"""Units whose file somebody has removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshaccel import unit_actions
from meshaccel.paths import NodePaths
from meshaccel.system import systemd
from meshaccel.unit_actions import WANTED_BY, Unit

NAME = "meshaccel-follow.service"


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """The link of an enabled unit, whose file is gone."""
    made = tmp_path / "units" / WANTED_BY / NAME
    made.parent.mkdir(parents=True)
    made.symlink_to(tmp_path / "units" / NAME)
    return made


@pytest.mark.parametrize("active", [True, False])
def test_it_is_stopped_and_taken_out_of_the_boot(
    tmp_path: Path, link: Path, monkeypatch: pytest.MonkeyPatch, *, active: bool
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(systemd, "is_active", lambda _: active)
    monkeypatch.setattr(systemd, "control", lambda *words: calls.append(words))
    paths = NodePaths(units=str(tmp_path / "units"))
    (action,) = unit_actions.removed(Unit.observe(paths, NAME), starts=True)
    unit_actions.handlers()[action.kind](action.arguments)
    assert calls == [*([("stop", NAME)] if active else []), ("daemon-reload",)]
    assert not link.is_symlink()
    assert unit_actions.removed(Unit.observe(paths, NAME), starts=True) == ()
