"""Vagrant: what a box is made of, what Vagrant says, and what is left when something fails."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.processes import ProcessError
from tests.vagrant import __main__ as command
from tests.vagrant import box, libvirt, machine
from tests.vagrant.box import Box
from tests.vagrant.machine import Machine, VagrantError
from tests.vm import recipe
from tests.vm.build import DISK_BYTES, BuildError
from tests.vm.image import Image
from tests.vm.recipe import DEFAULT_KERNEL

LISTED = """\
1795294099,,ui,info,other (libvirt%!(VAGRANT_COMMA) 0)
1795294099,,box-name,other
1795294099,,box-provider,libvirt
"""
DESCRIBED = """\
Host sockops
  HostName 192.0.2.7
  User {user}
  Port 2222
  UserKnownHostsFile /dev/null
  IdentityFile "/a folder/key"
"""

# ---- boxes ----


def test_every_part_of_a_box_names_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Box(DEFAULT_KERNEL, tmp_path)
    names = [before.name, *(Box(kernel, tmp_path).name for kernel in list(recipe.KERNELS)[1:])]
    shutil.copytree(box.BOX_FILES, tmp_path / "files")
    with monkeypatch.context() as other:
        other.setattr(box, "BOX_FILES", tmp_path / "files")
        assert before.name == names[0]
        (tmp_path / "files" / "Vagrantfile").write_text("other", encoding="utf-8")
        names.append(before.name)
    for name, value in (("FORMAT", 0), ("DISK_GIGABYTES", 99)):
        with monkeypatch.context() as other:
            other.setattr(box, name, value)
            names.append(before.name)
    with monkeypatch.context() as other:
        other.setattr("tests.vm.emulator.KERNEL_ARGUMENTS", "other")
        names.append(before.name)
    assert len(set(names)) == len(names) == len(recipe.KERNELS) + 4


def test_the_guest_of_a_box_mounts_the_partition() -> None:
    text = box.init_of_partition()
    assert f"-b {box.PARTITION_DEVICE} " in text
    assert f"{box.DISK_DEVICE} " not in text


def test_the_disk_is_as_large_as_vagrant_is_told() -> None:
    """libvirt gives a guest's disk that size: a smaller one would cut the file system."""
    assert box.PARTITION_START + DISK_BYTES <= box.DISK_GIGABYTES * 10**9


def test_a_box_has_all_that_its_vagrantfile_reads(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.directory.mkdir()
    image.login_key.write_text("key", encoding="ascii")
    (tmp_path / "box.img").touch()
    with tarfile.open(Box(DEFAULT_KERNEL, tmp_path)._pack(image, tmp_path)) as archive:
        names = archive.getnames()
        described = archive.extractfile("metadata.json")
        assert described is not None
        assert json.load(described)["provider"] == "libvirt"
    text = (box.BOX_FILES / "Vagrantfile").read_text(encoding="utf-8")
    assert {"box.img", "Vagrantfile"} <= set(names)
    assert [
        name for name in ("login_key", "processor") if f'(__dir__, "{name}")' in text and name in names
    ] == [
        "login_key",
        "processor",
    ]


@pytest.fixture
def file_system(tmp_path: Path) -> Path:
    """An empty file system of a megabyte, not mounted."""
    path = tmp_path / "file_system"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", str(path)], check=True)
    return path


def test_a_file_is_written_over_another_one_in_a_file_system(file_system: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for text in ("first and longer", "second"):
        source.write_text(text, encoding="ascii")
        box.write(str(file_system), "/written", source)
    box.check_file_system(str(file_system))


def test_a_file_that_does_not_fit_is_an_error(file_system: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 << 20))
    with pytest.raises(BuildError, match="/written was not written"):
        box.write(str(file_system), "/written", source)


def test_a_file_system_beyond_repair_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file_system"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(BuildError, match="e2fsck ended with"):
        box.check_file_system(str(path))


# ---- machines ----


@dataclasses.dataclass(frozen=True)
class VagrantStandIn:
    """A command that writes down how it was called, and answers from files."""

    folder: Path

    def answer(self, word: str, text: str = "", status: int = 0) -> None:
        (self.folder / f"{word}.answer").write_text(text, encoding="utf-8")
        (self.folder / f"{word}.status").write_text(str(status), encoding="ascii")

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VagrantStandIn:
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "vagrant"
    script.write_text(
        f'#!/bin/sh\ncd {folder}\necho "$MESHACCEL_VAGRANT_NODES $MESHACCEL_VAGRANT_BOX: $*" >>calls\n'
        'cat "$1.answer" 2>/dev/null\nexit "$(cat "$1.status" 2>/dev/null || echo 0)"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv(machine.BOX_VARIABLE, raising=False)
    return VagrantStandIn(folder)


def test_a_machine_is_started_and_told_as_a_guest_is(tmp_path: Path, vagrant: VagrantStandIn) -> None:
    vagrant.answer("ssh-config", DESCRIBED.format(user="root"))
    login = Machine("sockops", tmp_path / "state").start({machine.BOX_VARIABLE: "some/box"})
    assert login == {
        "address": "192.0.2.7",
        "port": 2222,
        "user": "root",
        "options": {"IdentityFile": "/a folder/key"},
    }
    assert vagrant.calls() == [
        "sockops some/box: up --provision-with packages",
        "sockops some/box: ssh-config sockops",
    ]


def test_root_is_admitted_where_another_user_logs_in(tmp_path: Path, vagrant: VagrantStandIn) -> None:
    vagrant.answer("ssh-config", DESCRIBED.format(user="vagrant"))
    assert Machine("sockops", tmp_path / "state").start({machine.BOX_VARIABLE: "some/box"})["user"] == "root"
    assert vagrant.calls()[-1] == f"sockops some/box: ssh sockops --command {machine.ADMIT_SUPERUSER}"


def test_a_machine_that_does_not_start_is_told_and_destroyed(tmp_path: Path, vagrant: VagrantStandIn) -> None:
    vagrant.answer("up", "the reason\n\tfrom /some/program.rb:1\n", status=1)
    with pytest.raises(VagrantError, match=r"vagrant up ended with 1:\nthe reason$"):
        Machine("sockops", tmp_path / "state").start({machine.BOX_VARIABLE: "some/box"})
    assert vagrant.calls()[-1] == "sockops some/box: destroy --force"
    assert not (tmp_path / "state").exists()


def test_a_machine_that_was_never_started_is_not_asked_for(tmp_path: Path, vagrant: VagrantStandIn) -> None:
    Machine("sockops", tmp_path / "state").stop()
    assert not (vagrant.folder / "calls").exists()


def test_a_machine_that_cannot_be_destroyed_is_remembered(tmp_path: Path, vagrant: VagrantStandIn) -> None:
    vagrant.answer("destroy", "busy", status=1)
    (tmp_path / "state").mkdir()
    with pytest.raises(VagrantError, match="busy"):
        Machine("sockops", tmp_path / "state").stop()
    assert (tmp_path / "state").exists()


def test_no_vagrant_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(machine.BOX_VARIABLE, "some/box")
    monkeypatch.setattr(command, "DIRECTORY", tmp_path)
    assert command.main(["start", "sockops"]) == 1
    assert "vagrant: vagrant is not installed" in capsys.readouterr().err


def test_a_box_is_added_once(vagrant: VagrantStandIn) -> None:
    vagrant.answer("box", LISTED)
    machine.provide_box("other", Path("other.box"))
    machine.provide_box("new", Path("new.box"))
    assert [call.strip() for call in vagrant.calls()] == [
        ": box list --machine-readable",
        ": box list --machine-readable",
        ": box add --name new new.box",
    ]


# ---- libvirt's daemon ----


@pytest.fixture
def no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where libvirt's daemons do not run."""
    monkeypatch.setattr(libvirt, "SOCKET", tmp_path / "libvirt")
    monkeypatch.setattr(libvirt, "LOG_SOCKET", tmp_path / "log")


@pytest.mark.usefixtures("no_daemon")
def test_a_daemon_that_does_not_start_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt, "LOG_DAEMON", ("sh", "-c", "echo the reason >&2; exit 3"))
    with (
        pytest.raises(ProcessError, match=r"(?s)ended before .*log was ready.*the reason"),
        libvirt.provided(),
    ):
        pass


@pytest.mark.usefixtures("no_daemon")
def test_a_daemon_that_runs_is_used_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt, "DAEMON", ("false",))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(libvirt.SOCKET))
        listener.listen()
        with libvirt.provided():
            assert libvirt.answers(libvirt.SOCKET)
        assert libvirt.answers(libvirt.SOCKET)


def test_what_runs_is_ended_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'echo "$*" >>"$0.calls"; case $1 in list) echo one; echo two;; net-list) echo net;; esac'
    monkeypatch.setattr(libvirt, "VIRSH", ("sh", "-c", script, str(tmp_path / "virsh")))
    libvirt.end_all()
    assert (tmp_path / "virsh.calls").read_text(encoding="ascii").splitlines() == [
        "list --name",
        "destroy one",
        "destroy two",
        "net-list --name",
        "net-destroy net",
    ]
