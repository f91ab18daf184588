"""One demonstration at a time; what a killed one left is taken down by the next, and only what is its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.demo import session as session_module
from tests.demo.accelerator import parse_recap
from tests.demo.session import AlreadyRunning, Session, signals_as_exit


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what would be taken down instead of doing it."""
    made: list[str] = []
    monkeypatch.setattr(session_module, "run_playbook", lambda playbook, _report: made.append(playbook))
    monkeypatch.setattr(session_module, "remove_leftovers", lambda: made.append("leftovers"))
    monkeypatch.setattr(session_module, "remove_made_by", lambda process: made.append(f"made by {process}"))
    return made


def ignore(_line: str) -> None:
    pass


def killed(directory: Path, *, accelerated: bool) -> None:
    (directory / "session.json").write_text(json.dumps({"process": 1, "accelerated": accelerated}))


def test_nothing_is_noted_after_a_run(tmp_path: Path, calls: list[str]) -> None:
    with Session(tmp_path).open(ignore):
        note = json.loads((tmp_path / "session.json").read_text())
        assert note == {"process": os.getpid(), "accelerated": False}
    assert not (tmp_path / "session.json").exists()
    assert calls == [f"made by {os.getpid()}"]


def test_a_second_one_has_to_wait(tmp_path: Path, calls: list[str]) -> None:
    with (
        Session(tmp_path).open(ignore),
        pytest.raises(AlreadyRunning, match="--down"),
        Session(tmp_path).open(ignore),
    ):
        pytest.fail("two demonstrations at once")
    assert calls == [f"made by {os.getpid()}"]


def test_an_error_is_passed_on_and_leaves_no_note(tmp_path: Path, calls: list[str]) -> None:
    with pytest.raises(KeyError), Session(tmp_path).open(ignore):
        raise KeyError
    assert not (tmp_path / "session.json").exists()
    assert calls == [f"made by {os.getpid()}"]


def test_an_accelerator_that_could_not_be_taken_off_stays_noted(tmp_path: Path, calls: list[str]) -> None:
    session = Session(tmp_path)

    def fail() -> None:
        with session.open(ignore):
            session.note_accelerated(True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert json.loads((tmp_path / "session.json").read_text())["accelerated"]
    calls.clear()
    with session.open(ignore):
        assert calls == ["playbooks/remove.yml", "leftovers"]


def test_an_accelerator_that_is_not_its_own_is_left_alone(tmp_path: Path, calls: list[str]) -> None:
    killed(tmp_path, accelerated=False)
    assert Session(tmp_path).recover(ignore)
    assert calls == ["leftovers"]


def test_take_down_of_a_killed_one(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "lock").touch()
    killed(tmp_path, accelerated=True)
    assert Session(tmp_path).take_down(ignore)
    assert calls == ["playbooks/remove.yml", "leftovers"]
    assert not Session(tmp_path).take_down(ignore)


def test_take_down_of_nothing(tmp_path: Path, calls: list[str]) -> None:
    assert not Session(tmp_path / "never").take_down(ignore)
    assert calls == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_and_further_ones_do_not_disturb(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    cleaned = []

    def run_until_signalled() -> None:
        with signals_as_exit():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)
                cleaned.append("everything")

    with pytest.raises(SystemExit) as ending:
        run_until_signalled()
    assert cleaned == ["everything"]
    assert ending.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_recap_is_the_line_of_the_host() -> None:
    lines = [
        "PLAY RECAP ***",
        "localhost                  : ok=9    changed=3    unreachable=0    failed=0    skipped=1 ",
        "",
    ]
    assert parse_recap(lines) == ("localhost : ok=9 changed=3 unreachable=0 failed=0 skipped=1", 3)


def test_a_play_without_recap() -> None:
    assert parse_recap(["ERROR! no such file"]) is None
