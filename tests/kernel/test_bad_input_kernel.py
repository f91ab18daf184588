"""What cannot be done is said clearly, and nothing on the node has changed then."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.errors import ApplyFailed, InvalidInput, MeshaccelError, NotOurs, Unsupported
from tests.kernel import compiled
from tests.kernel.installations import installation, present
from tests.kernel.inventory import programs_of
from tests.kernel.observation import assert_accelerates
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.accelerator import OBJECT, ROOT
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected
from tests.support.directories import temporary_directory
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

Footprint = dict[str, object]


def footprint(node: Sockops, cgroups: Cgroups) -> Footprint:
    """Return everything that an installation leaves on a node: files, mounts, pins, attachments."""
    paths = node.paths
    places = [paths.configuration, paths.library, paths.runtime, paths.bpffs]
    found = [path for place in places for path in Path(place).rglob("*")]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {
        "files": {str(path): content_of(path) for path in found},
        "mounts": [line for line in mounts if any(place in line for place in places)],
        "programs": [programs_of(cgroup) for cgroup in (cgroups.client, cgroups.server)],
    }


def content_of(path: Path) -> object:
    """Return what tells whether a file has changed; of a pin that is its name alone.

    A link that was taken away and put back by an undo is another one, and as good.
    """
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.is_file() and path.stat().st_size else None


@contextlib.contextmanager
def nothing_changes(node: Sockops, cgroups: Cgroups) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = footprint(node, cgroups)
    yield
    assert footprint(node, cgroups) == before


@contextlib.contextmanager
def refused(node: Sockops, cgroups: Cgroups, kind: type[MeshaccelError], words: str) -> Iterator[None]:
    """What is done inside raises this error, and nothing changes."""
    with nothing_changes(node, cgroups), pytest.raises(kind, match=words) as raised:
        yield
    assert not isinstance(raised.value, ApplyFailed) or raised.value.undo_errors == ()


@pytest.fixture(params=["untouched", "converged"])
def either_node(request: pytest.FixtureRequest, own_cgroups: Cgroups) -> Iterator[Sockops]:
    """A node with nothing on it, and one that works: neither may suffer."""
    with installation() as node:
        if request.param == "converged":
            present(node, own_cgroups.paths)
        yield node
        if request.param == "converged":
            assert_accelerates(node, own_cgroups)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("meshaccel-test-nowhere", "no such cgroup"),
        ("../..", "which is outside"),
        ("/", "which is outside"),
        ("cgroup.procs", "a symlink, a file or another file system"),
    ],
)
def test_a_path_that_is_no_cgroup(either_node: Sockops, own_cgroups: Cgroups, path: str, words: str) -> None:
    with refused(either_node, own_cgroups, InvalidInput, words):
        present(either_node, [*own_cgroups.paths, path])


def test_a_cgroup_of_version_1(either_node: Sockops, own_cgroups: Cgroups) -> None:
    with temporary_directory("cgroup1") as mount:
        run(["mount", "-t", "cgroup", "-o", "none,name=meshaccel-test", "none", mount])
        try:
            with refused(either_node, own_cgroups, InvalidInput, "which is outside"):
                present(either_node, [*own_cgroups.paths, mount])
        finally:
            run(["umount", mount])


def cut_short(directory: Path, share: float) -> Path:
    """Return an object file that ends too early."""
    content = OBJECT.read_bytes()
    path = directory / "sockops.bpf.o"
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_an_object_cut_short(
    either_node: Sockops, own_cgroups: Cgroups, tmp_path: Path, share: float
) -> None:
    broken = replace(either_node, object_path=str(cut_short(tmp_path, share)))
    with refused(broken, own_cgroups, MeshaccelError, "sockops.bpf.o"):
        present(broken, own_cgroups.paths)


def test_an_object_that_is_no_bpf_at_all(either_node: Sockops, own_cgroups: Cgroups) -> None:
    broken = replace(either_node, object_path=sys.executable)
    with refused(broken, own_cgroups, MeshaccelError, "python"):
        present(broken, own_cgroups.paths)


def test_an_object_of_somebody_else(either_node: Sockops, own_cgroups: Cgroups) -> None:
    foreign = replace(either_node, object_path=str(ROOT / "build" / "bench" / "classic.bpf.o"))
    with refused(foreign, own_cgroups, MeshaccelError, "classic.bpf.o"):
        present(foreign, own_cgroups.paths)


def test_an_object_with_another_layout(either_node: Sockops, own_cgroups: Cgroups) -> None:
    broken = replace(either_node, object_path=str(compiled.variant(compiled.OTHER_LAYOUT)))
    with refused(broken, own_cgroups, MeshaccelError, "struct sockops_counters"):
        present(broken, own_cgroups.paths)


def test_an_object_that_the_verifier_refuses(either_node: Sockops, own_cgroups: Cgroups) -> None:
    """The end of the verifier's log is in the error."""
    broken = replace(either_node, object_path=str(compiled.variant(compiled.OUT_OF_BOUNDS)))
    with refused(broken, own_cgroups, ApplyFailed, "processed [0-9]+ insns"):
        present(broken, own_cgroups.paths)


def test_no_object_at_all(either_node: Sockops, own_cgroups: Cgroups, tmp_path: Path) -> None:
    missing = replace(either_node, object_path=str(tmp_path / "sockops.bpf.o"))
    with refused(missing, own_cgroups, Unsupported, "none installed"):
        present(missing, own_cgroups.paths)


def test_a_read_only_bpffs(own_cgroups: Cgroups) -> None:
    with installation() as node:
        run(["mount", "-t", "bpf", "-o", "ro", "none", node.paths.bpffs])
        with refused(node, own_cgroups, Unsupported, "mounted read-only"):
            present(node, own_cgroups.paths)


def test_a_symlink_where_the_desired_state_goes(own_cgroups: Cgroups, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    with installation() as node:
        link = Path(node.paths.desired("sockops"))
        link.parent.mkdir()
        link.symlink_to(victim)
        with refused(node, own_cgroups, NotOurs, "sockops.json"):
            present(node, own_cgroups.paths)
        link.unlink()
    assert victim.read_text(encoding="utf-8") == "precious"


def test_a_desired_state_edited_by_hand(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """restore does not guess; a run of the playbook writes it anew."""
    document = Path(own_node.paths.desired("sockops"))
    document.write_text('{"state": "present"', encoding="utf-8")
    with refused(own_node, own_cgroups, InvalidInput, "damaged or edited by hand"):
        own_node.restore()
    assert present(own_node, own_cgroups.paths).changed
    assert not own_node.restore().changed


def converge_without(capabilities: str, node: Sockops, cgroups: list[str]) -> str:
    """Converge in a process without these capabilities; return the words of its error."""
    wish = {
        "paths": dataclasses.asdict(node.paths),
        "object": node.object_path,
        "cgroups": cgroups,
    }
    program = ["env", f"PYTHONPATH={ROOT}:{ROOT / 'module_utils'}", sys.executable]
    return run(
        ["setpriv", f"--bounding-set={capabilities}", "--", *program, "-m", "tests.kernel.converge_child"],
        standard_input=json.dumps(wish),
    )


def test_without_the_right_to_mount(own_cgroups: Cgroups) -> None:
    with installation() as node, nothing_changes(node, own_cgroups):
        error = converge_without("-sys_admin", node, own_cgroups.paths)
        assert "CAP_SYS_ADMIN" in error
        assert node.paths.bpffs in error


def test_without_the_right_to_load_programs(own_cgroups: Cgroups) -> None:
    with installation() as node:
        run(["mount", "-t", "bpf", "none", node.paths.bpffs])
        with nothing_changes(node, own_cgroups):
            error = converge_without("-sys_admin,-bpf", node, own_cgroups.paths)
        assert "CAP_BPF" in error


@pytest.mark.parametrize("capabilities", ["-all", "-sys_ptrace"])
def test_without_rights_on_a_node_that_works(
    own_node: Sockops, own_cgroups: Cgroups, capabilities: str
) -> None:
    """Nothing may be touched, or other processes not be looked at: the run says so and changes nothing."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        live.exchange()
        before = own_node.status()["cgroups"].keys()
        with TestCgroup("third") as third, nothing_changes(own_node, own_cgroups):
            wish = [own_cgroups.client.relative_path, third.relative_path]
            error = converge_without(capabilities, own_node, wish)
            assert "not permitted" in error
            assert programs_of(third) == []
        assert own_node.status()["cgroups"].keys() == before
        assert not present(own_node, own_cgroups.paths).changed
        live.exchange()
        assert_accelerates(own_node, own_cgroups)
