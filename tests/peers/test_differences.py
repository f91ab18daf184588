"""The table of accepted differences is what operators are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.differences import ACCEPTED, Difference, differing

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "sockops.md"


@pytest.mark.parametrize("difference", ACCEPTED, ids=lambda difference: difference.documented)
def test_an_accepted_difference_is_documented(difference: Difference) -> None:
    assert difference.documented in DOCUMENTATION.read_text(encoding="utf-8")


def test_no_case_is_accepted_twice() -> None:
    cases = [(each.suite, case) for each in ACCEPTED for case in each.cases]
    assert len(cases) == len(set(cases))


def test_outcomes_that_changed_came_or_went_differ() -> None:
    off = {"same": "passed", "changed": "passed", "went": "passed"}
    on = {"same": "passed", "changed": "failure", "came": "passed"}
    assert differing(off, on) == {
        "came": (None, "passed"),
        "changed": ("passed", "failure"),
        "went": ("passed", None),
    }
