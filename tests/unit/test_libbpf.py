"""What is said of libbpf's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meshaccel.bpf import layouts
from meshaccel.bpf.libbpf import BpfError
from meshaccel.errors import NotOurs

if TYPE_CHECKING:
    from pathlib import Path


def test_an_error_of_the_system_is_told_in_its_words_and_with_what_libbpf_printed() -> None:
    assert str(BpfError(2, "open it", ("no such map",))).endswith(
        "open it: No such file or directory (no such map)"
    )


def test_an_error_of_libbpfs_own_is_not_called_unknown(tmp_path: Path) -> None:
    """A file cut short, as libbpf itself answers."""
    cut_short = tmp_path / "object.bpf.o"
    cut_short.write_bytes(b"\x7fELF")
    with (
        pytest.raises(NotOurs, match="libbpf does not take it") as caught,
        layouts.object_btf(str(cut_short)),
    ):
        pass
    assert "Unknown error" not in str(caught.value)
