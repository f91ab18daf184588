"""The error an operator sees."""

from __future__ import annotations

import pytest

from meshaccel.errors import ApplyFailed, Busy, InvalidInput, MeshaccelError, NotOurs, Unsupported
from meshaccel.model import Answer, Capability


def test_an_error_reads_as_wanted_found_and_what_to_do() -> None:
    error = MeshaccelError(wanted="a file", found="a symlink", remedy="remove it")
    assert str(error) == "wanted a file; found a symlink; remove it"


@pytest.mark.parametrize("kind", [InvalidInput, Unsupported, NotOurs, Busy])
def test_every_kind_of_error_keeps_its_three_parts(kind: type[MeshaccelError]) -> None:
    error = kind(wanted="w", found="f", remedy="r")
    assert isinstance(error, MeshaccelError)
    assert (error.wanted, error.found, error.remedy) == ("w", "f", "r")


def test_a_failed_run_keeps_the_errors_of_its_way_back() -> None:
    error = ApplyFailed(wanted="w", found="f", remedy="r", undo_errors=("one", "two"))
    assert isinstance(error, MeshaccelError)
    assert error.undo_errors == ("one", "two")


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        (Capability("sockmap", Answer.YES), "yes"),
        (Capability("sockmap", Answer.NO, "EINVAL", "4.14"), "no: EINVAL"),
        (Capability("sockmap", Answer.UNKNOWN, "not root"), "unknown: not root"),
    ],
    ids=["yes", "no", "unknown"],
)
def test_a_capability_gives_its_reason_unless_it_is_there(capability: Capability, words: str) -> None:
    assert str(capability) == words
