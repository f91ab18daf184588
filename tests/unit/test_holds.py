"""What an operator holds by hand: kept, read back, and never guessed from a damaged file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshaccel import holds
from meshaccel.errors import InvalidInput, NotOurs
from meshaccel.holds import Hold
from meshaccel.model import Mode
from meshaccel.paths import NodePaths

if TYPE_CHECKING:
    from meshaccel.model import Json

any_hold = st.builds(
    Hold, st.none() | st.sampled_from(Mode), st.dictionaries(st.text(min_size=1), st.sampled_from(Mode))
)


def keep(paths: NodePaths, content: Json) -> None:
    file = Path(paths.holds)
    file.parent.mkdir()
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def test_nothing_is_held_where_there_is_no_file(paths: NodePaths) -> None:
    assert holds.read(paths, "sockops") == Hold()


@settings(max_examples=30)  # each writes to the disk
@given(any_hold)
def test_what_is_held_is_read_back(hold: Hold) -> None:
    with tempfile.TemporaryDirectory() as directory:
        paths = NodePaths(configuration=directory)
        holds.write(paths, "sockops", hold)
        assert holds.read(paths, "sockops") == hold


def test_each_accelerator_has_a_hold_of_its_own(paths: NodePaths) -> None:
    holds.write(paths, "sockops", Hold(Mode.OFF))
    holds.write(paths, "vcl", Hold(Mode.DRAIN))
    holds.write(paths, "sockops", Hold())
    assert (holds.read(paths, "sockops"), holds.read(paths, "vcl")) == (Hold(), Hold(Mode.DRAIN))


def test_lifting_the_last_hold_removes_the_file(paths: NodePaths) -> None:
    holds.write(paths, "sockops", Hold(cgroups={"a": Mode.OFF}))
    holds.write(paths, "sockops", Hold())
    assert not Path(paths.holds).exists()


def test_lifting_where_nothing_is_held_leaves_no_file(paths: NodePaths) -> None:
    holds.write(paths, "sockops", Hold())
    assert not Path(paths.holds).exists()


@pytest.mark.parametrize(
    ("hold", "empty"),
    [(Hold(), True), (Hold(Mode.OFF), False), (Hold(cgroups={"a": Mode.OFF}), False)],
    ids=["nothing", "all-of-it", "one-cgroup"],
)
def test_a_hold_is_empty_when_it_holds_nothing(hold: Hold, *, empty: bool) -> None:
    assert hold.empty is empty


DAMAGED = [
    pytest.param("", id="empty"),
    pytest.param("{", id="cut-short"),
    pytest.param([], id="a-list"),
    pytest.param(None, id="null"),
    pytest.param({"sockops": "off"}, id="a-word"),
    pytest.param({"sockops": []}, id="list-as-hold"),
    pytest.param({"sockops": {"mode": "of", "cgroups": {}}}, id="misspelt-mode"),
    pytest.param({"sockops": {"mode": False, "cgroups": {}}}, id="boolean-mode"),
    pytest.param({"sockops": {"mode": [], "cgroups": {}}}, id="list-as-mode"),
    pytest.param({"sockops": {"mdoe": "off", "cgroups": {}}}, id="misspelt-key"),
    pytest.param({"sockops": {"mode": "off"}}, id="no-cgroups"),
    pytest.param({"sockops": {"mode": None, "cgroups": ["a"]}}, id="cgroups-as-list"),
    pytest.param({"sockops": {"mode": None, "cgroups": {"a": "of"}}}, id="misspelt-mode-of-a-cgroup"),
    pytest.param({"sockops": {"mode": None, "cgroups": {"a": None}}}, id="null-mode-of-a-cgroup"),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_an_error_that_names_it_and_never_a_guess(paths: NodePaths, content: Json) -> None:
    keep(paths, content)
    with pytest.raises(InvalidInput) as caught:
        holds.read(paths, "sockops")
    assert paths.holds in caught.value.wanted
    assert "damaged or edited" in caught.value.found
    assert "remove the file" in caught.value.remedy


def test_bytes_that_are_no_text_are_damage(paths: NodePaths) -> None:
    keep(paths, "")
    Path(paths.holds).write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="damaged"):
        holds.read(paths, "sockops")


def test_a_damaged_file_is_not_written_over(paths: NodePaths) -> None:
    keep(paths, "{")
    with pytest.raises(InvalidInput):
        holds.write(paths, "vcl", Hold(Mode.OFF))
    assert Path(paths.holds).read_text() == "{"


def test_a_symlink_in_the_place_of_the_file_is_refused(paths: NodePaths, tmp_path: Path) -> None:
    keep(paths, "")
    Path(paths.holds).unlink()
    (tmp_path / "elsewhere").write_text("{}")
    Path(paths.holds).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotOurs):
        holds.read(paths, "sockops")
    with pytest.raises(NotOurs):
        holds.write(paths, "sockops", Hold(Mode.OFF))
