"""The structures of the package against those of the built BPF object."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.bpf import layouts
from meshaccel.errors import MeshaccelError, NotOurs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OBJECT = Path(__file__).resolve().parents[2] / "build" / "bpf" / "sockops.bpf.o"


def declare(fields: Sequence[tuple[str, Any]]) -> type[ctypes.Structure]:
    return type("Declared", (ctypes.Structure,), {"_fields_": list(fields)})


CONTROL: list[Any] = list(layout.Control._fields_)


@pytest.mark.parametrize("name", layout.STRUCTURES)
def test_the_built_object_has_every_structure_as_it_is_declared(name: str) -> None:
    with layouts.object_btf(str(OBJECT)) as btf:
        assert layouts.members(btf, name) == layouts.declared(layout.STRUCTURES[name])


def test_the_built_object_passes_the_check_as_a_whole() -> None:
    layouts.check(str(OBJECT), layout.STRUCTURES)


def test_a_structure_that_the_object_lacks_has_no_members() -> None:
    with layouts.object_btf(str(OBJECT)) as btf:
        assert layouts.members(btf, "sockops_nothing") is None


def test_the_constant_that_is_set_before_loading_is_there() -> None:
    with layouts.object_btf(str(OBJECT)) as btf:
        assert layouts.section_variables(btf, ".rodata")["use_casts"] == (0, 4)


DIFFERENT = [
    pytest.param([("mood", ctypes.c_uint32), *CONTROL[1:]], "mode, mood", id="renamed"),
    pytest.param([*CONTROL[:2], ("object_digest", ctypes.c_uint32)], "object_digest", id="resized"),
    pytest.param([CONTROL[1], CONTROL[0], CONTROL[2]], "mode, reserved", id="swapped"),
    pytest.param(CONTROL[:2], "object_digest", id="left-out"),
    pytest.param([*CONTROL, ("extra", ctypes.c_uint32)], "extra", id="added"),
    pytest.param(
        [CONTROL[0], ("reserved", ctypes.c_uint64), CONTROL[2]], "object_digest, reserved", id="shifted"
    ),
]


@pytest.mark.parametrize(("fields", "differing"), DIFFERENT)
def test_a_declaration_that_differs_is_reported_with_its_members(
    fields: list[tuple[str, Any]], differing: str
) -> None:
    with pytest.raises(MeshaccelError) as caught:
        layouts.check(str(OBJECT), {"sockops_control": declare(fields)})
    error = caught.value
    assert "struct sockops_control" in error.wanted
    assert error.found == f"{OBJECT} with other {differing}"
    assert "install the node release again" in error.remedy


def test_an_object_without_our_structures_is_not_ours() -> None:
    with pytest.raises(NotOurs, match="no struct ipvs_control in its BTF"):
        layouts.check(str(OBJECT), {"ipvs_control": layout.Control})


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"no object\n",
        lambda whole: whole[:4],
        lambda whole: whole[:1000],
        lambda whole: whole[:-1000],
    ],
    ids=["empty", "text", "only-the-mark", "cut-early", "cut-late"],
)
def test_a_file_that_is_no_whole_object_is_refused_by_its_name(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    damaged = tmp_path / "sockops.bpf.o"
    damaged.write_bytes(damage(OBJECT.read_bytes()))
    with pytest.raises(NotOurs) as caught:
        layouts.check(str(damaged), layout.STRUCTURES)
    assert str(damaged) in caught.value.wanted
    assert "cut short" in caught.value.remedy


def test_an_object_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotOurs, match="No such file"):
        layouts.check(str(tmp_path / "none.bpf.o"), layout.STRUCTURES)
