"""ipvs_bpf where the node is in its way: symlinks, foreign pins, a full disk, no nft, lost capabilities."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import PROGRAMS, ProgramMode
from meshaccel.accelerators.ipvs_bpf.settings_before import settings_before
from meshaccel.accelerators.ipvs_bpf.status import status, status_lines
from meshaccel.errors import ApplyFailed, MeshaccelError, NotOurs, Unsupported
from meshaccel.model import Mode
from meshaccel.system import tools
from tests.kernel.directors import Director, director
from tests.kernel.test_ipvs_bpf_lifecycle import filters, loaded, remains
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Numbers of linux/capability.h.
NET_ADMIN, SYS_ADMIN, BPF = 12, 21, 39
CAPABILITIES_VERSION = 0x20080522


@pytest.fixture
def own() -> Iterator[Director]:
    with director() as made:
        yield made


# ---- files ----


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
@pytest.mark.parametrize("name", ["wish", "settings"])
def test_what_is_no_file_where_ours_would_be_is_refused_and_stays(
    own: Director, tmp_path: Path, name: str, kind: str
) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's")
    paths = own.node.paths
    place = Path(paths.desired("ipvs_bpf") if name == "wish" else settings_before(paths))
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "symlink":
        place.symlink_to(target)
    elif kind == "directory":
        place.mkdir()
    else:
        os.mkfifo(place)
    for wish in ({}, {"mode": "native"}, {"state": "absent"}):
        with pytest.raises(NotOurs, match=re.escape(str(place))):
            own.converge(**wish)
    assert target.read_text() == "somebody's"
    assert set(filters(own).values()) == {0}
    assert own.call("nft", "list", "tables") == ""
    assert place.is_symlink() or not place.is_file()
    if kind == "directory":
        place.rmdir()
    else:
        place.unlink()


def test_a_symlink_in_place_of_the_directory_is_not_followed(own: Director, tmp_path: Path) -> None:
    place = Path(own.node.paths.configuration)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path)
    with pytest.raises(ApplyFailed, match=r"wanted a directory at .* found a symlink"):
        own.converge()
    assert list(tmp_path.iterdir()) == []
    assert remains(own) == []
    place.unlink()


def test_a_full_disk_leads_back_and_with_room_it_goes_on(own: Director) -> None:
    place = Path(own.node.paths.configuration)
    place.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(place)])
    try:
        fill = place / "fill"
        fill.write_bytes(bytes(4096))
        with pytest.raises(ApplyFailed, match="No space left on device") as caught:
            own.converge()
        assert caught.value.undo_errors == ()
        assert set(filters(own).values()) == {0}
        assert list(place.iterdir()) == [fill], "no half-written file is left"
        fill.unlink()
        run(["mount", "-o", "remount,size=64k", str(place)])
        assert own.converge().changed
        own.converge(state="absent")
        assert list(place.iterdir()) == []
    finally:
        run(["umount", str(place)])


# ---- pins ----


def pin_foreign_map(place: str, kind: str = "hash", value: int = 4096) -> None:
    """Pin somebody's map, with larger values than ours has."""
    Path(place).unlink(missing_ok=True)
    shape = ["type", kind, "key", "4", "value", str(value), "entries", "1", "name", "foreign"]
    run(["bpftool", "map", "create", place, *shape])


def test_an_object_in_place_of_our_directory_of_pins_is_named_and_stays(own: Director) -> None:
    place = Path(own.node.pins.root)
    place.parent.mkdir()
    pin_foreign_map(str(place))
    with pytest.raises(ApplyFailed, match=r"wanted a directory of pins at .*ipvs_bpf; found something else"):
        own.converge()
    assert place.exists()
    assert set(filters(own).values()) == {0}
    place.unlink()


@pytest.mark.parametrize("name", ["control", "flows", "devices", "counters"])
def test_a_map_of_another_layout_is_read_nowhere_and_replaced(own: Director, name: str) -> None:
    """Another release's, or somebody's: the kernel would write its larger values beyond ours."""
    own.converge()
    pin_foreign_map(own.node.pins.map(name), kind="array" if name == "control" else "hash")
    with own.inside():
        assert status(own.node) == {"state": "incomplete"}
        assert own.node.tend() == []
        if name == "control":
            with pytest.raises(NotOurs, match=r"found 4 and 4096 bytes: of another release"):
                own.node.switch_live(Mode.OFF)
    assert own.converge().changed
    assert loaded(own).usable
    assert loaded(own).mode is ProgramMode.ON
    assert not own.converge().changed


# ---- nft ----


def test_without_nft_a_run_names_the_package_and_the_status_tells_the_rest(
    own: Director, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(tools, "ENVIRONMENT", {"PATH": "/nowhere"})
        with pytest.raises(Unsupported, match="install nftables on the node"):
            own.converge()
        assert remains(own) == []
        assert own.converge(mode="native").changed, "what is native has no need of it"
    own.converge()
    with monkeypatch.context() as patched:
        patched.setattr(tools, "ENVIRONMENT", {"PATH": "/nowhere"})
        with own.inside():
            found = status(own.node)
        assert found["mode"] == "on"
        assert "install nftables" in found["trouble"]
        assert found["nft"]["in_force"] is None
        assert not any("NFT TABLE MISSING" in line for line in status_lines(found))
    own.call("nft", "flush", "ruleset")
    with own.inside():
        assert any("NFT TABLE MISSING" in line for line in status_lines(status(own.node)))


# ---- capabilities ----


class Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class Sets(ctypes.Structure):
    """struct __user_cap_data_struct."""

    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def lose(*numbers: int) -> None:
    """Give capabilities of this process up."""
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(CAPABILITIES_VERSION, 0), (Sets * 2)()
    library.capget(ctypes.byref(header), sets)
    for number in numbers:
        sets[number // 32].effective &= ~(1 << number % 32)
        sets[number // 32].permitted &= ~(1 << number % 32)
    if library.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((NET_ADMIN,), "Operation not permitted"), ((BPF, SYS_ADMIN), "run as root with CAP_BPF")],
    ids=["net-admin", "bpf"],
)
def test_without_a_capability_it_is_told_and_undone(
    own: Director, numbers: tuple[int, ...], said: str
) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # It ends in here: what is raised must not go on as a second pytest.
        with own.inside():
            try:
                lose(*numbers)
                own.node.converge(own.node.parse({"mode": "bpf", "follow": "all", "observe_seconds": 0}))
            except MeshaccelError as error:
                os.write(writing, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as told:
        words = told.read()
    assert words.startswith("ApplyFailed: ")
    assert said in words
    assert "everything done before it was undone" in words
    assert remains(own) == []


def test_a_program_s_pin_that_is_something_else_fails_the_run_and_absent_still_removes_all(
    own: Director,
) -> None:
    own.converge()
    pin_foreign_map(own.node.pins.program(loaded(own).digest, PROGRAMS[0]))
    with pytest.raises(ApplyFailed):
        own.converge()
    own.converge(state="absent")
    assert remains(own) == []
