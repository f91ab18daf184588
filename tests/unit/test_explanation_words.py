"""Every value of the header's enumerations has its words, and these are the documentation's."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest

from meshaccel.accelerators.sockops.explanation.words import (
    MESSAGE_CAUSES,
    REASON_CAUSES,
    SENTENCES,
    USES,
    Cause,
    MessageReason,
    Reason,
    Status,
    Use,
)

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "bpf" / "include" / "meshaccel" / "sockops.h").read_text()
LIMITS = (ROOT / "docs" / "sockops.md").read_text().partition("## Limits")[2].partition("\n## ")[0]


def enumeration(name: str, prefix: str) -> dict[str, int]:
    """Return an enumeration of the header, without its prefix."""
    (body,) = re.findall(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)
    return {word: int(number) for word, number in re.findall(rf"{prefix}(\w+) = (\d+),", body)}


@pytest.mark.parametrize(
    ("ours", "name", "prefix"),
    [
        (Status, "sockops_status", "SOCKOPS_STATUS_"),
        (Reason, "sockops_reason", "SOCKOPS_REASON_"),
        (MessageReason, "sockops_message_reason", "SOCKOPS_MESSAGE_"),
    ],
)
def test_the_headers_enumerations_are_the_packages(ours: type[enum.IntEnum], name: str, prefix: str) -> None:
    assert enumeration(name, prefix) == {member.name: member.value for member in ours}


def test_every_value_has_words() -> None:
    assert set(REASON_CAUSES) == set(Reason)
    assert set(MESSAGE_CAUSES) == set(MessageReason)
    assert set(SENTENCES) == set(Cause)
    assert set(USES) == set(Use)


@pytest.mark.parametrize("use", Use)
def test_what_an_incompatible_program_sees_is_in_the_table_of_limits(use: Use) -> None:
    sees = USES[use][1]
    assert any(sees in row.replace("`", "") for row in LIMITS.splitlines())
