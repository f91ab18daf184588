"""Virtual machines: what an image is made of, and that Molecule finds every playbook it is to run."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from meshaccel import capabilities
from tests.vm import (
    acceleration,
    archive,
    build,
    emulator,
    guest_tests,
    initial_file_system,
    kernel_package,
    kernels,
    network,
)
from tests.vm.__main__ import main
from tests.vm.archive import Archive, ArchiveUnknownError
from tests.vm.build import Builder, BuildError
from tests.vm.guest import Guest, GuestError
from tests.vm.guest_tests import Outcome
from tests.vm.image import Image
from tests.vm.kernel_package import DEPENDS, NoKernelError
from tests.vm.kernels import Answers
from tests.vm.monitor import Monitor, MonitorError
from tests.vm.network import AddressError, join
from tests.vm.recipe import DEFAULT_KERNEL, GUEST_FILES, KERNELS, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / ".config" / "molecule" / "config.yml"
SCENARIOS = sorted((ROOT / "molecule").glob("*/molecule.yml"))

# ---- Debian's archive ----


def test_the_archive_of_packages_is_taken_not_that_of_security_updates() -> None:
    listed = [
        "http://one.example/debian-security/\tmain",
        "http://two.example/other/\tmain",
        "http://two.example/debian/\tcontrib",
        "http://three.example/debian/\tmain",
    ]
    assert archive.address_of_debian(listed) == "http://three.example/debian"


def test_no_archive_of_debian_is_told_with_what_to_set() -> None:
    with pytest.raises(ArchiveUnknownError, match="MESHACCEL_MIRROR"):
        archive.address_of_debian(["http://one.example/ubuntu/\tmain"])


def test_a_mirror_of_the_operator_wins() -> None:
    found = archive.find({archive.VARIABLE: "http://mirror.example/debian/"})
    assert found.address == "http://mirror.example/debian"
    assert found.source("bookworm").endswith(" http://mirror.example/debian bookworm main")


def test_settings_of_the_connection_are_kept_and_others_are_not() -> None:
    dumped = 'APT::Architecture "amd64";\nAcquire "";\nAcquire::http::Proxy "http://p:3128";\nDir "/";\n'
    assert archive.kept_options(dumped) == ["Acquire::http::Proxy=http://p:3128"]
    assert list(build.apt_options(["A::b=c d"])) == ['A::b "c d"']


# ---- recipes ----


def test_every_part_of_a_recipe_and_of_its_files_names_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(KERNELS[DEFAULT_KERNEL])
    changed = [dataclasses.replace(recipe, kernel=kernel) for kernel in KERNELS.values()][1:]
    changed += [
        dataclasses.replace(recipe, userland="other"),
        dataclasses.replace(recipe, packages=("other",)),
        dataclasses.replace(recipe, masked_units=("other",)),
        dataclasses.replace(recipe, enabled_units=("other",)),
        dataclasses.replace(recipe, boot_modules=("other",)),
        dataclasses.replace(recipe, machine=("other",)),
    ]
    assert len(changed) == len(KERNELS) - 1 + len(dataclasses.fields(Recipe)) - 1
    assert len({recipe.digest(), *(other.digest() for other in changed)}) == len(changed) + 1
    (tmp_path / "file").write_text("other", encoding="utf-8")
    before = recipe.digest()
    monkeypatch.setattr("tests.vm.recipe.GUEST_FILES", tmp_path)
    assert recipe.digest() != before


def test_kernels_share_a_userland_and_other_programs_do_not() -> None:
    recipe = Recipe(KERNELS[DEFAULT_KERNEL])
    others = [dataclasses.replace(recipe, userland="other"), dataclasses.replace(recipe, packages=("other",))]
    assert len({Recipe(kernel).userland_digest() for kernel in KERNELS.values()}) == 1
    assert len({found.userland_digest() for found in (recipe, *others)}) == len(others) + 1


# ---- the kernel ----


def test_a_kernel_in_several_packages_is_found_whole() -> None:
    said = "linux-image-9-cloud\n  Depends: linux-base\n  Depends: linux-binary-9-cloud\n"
    said += "  Depends: linux-modules-9-cloud\n  Depends: <linux-initramfs-tool>\n"
    assert DEPENDS.findall(said) == ["linux-binary-9-cloud", "linux-modules-9-cloud"]


@pytest.mark.parametrize("prefix", ["", "usr/"])
def test_a_kernel_is_in_boot_or_with_its_modules(tmp_path: Path, prefix: str) -> None:
    modules = tmp_path / f"{prefix}lib/modules/9.1"
    modules.mkdir(parents=True)
    with pytest.raises(NoKernelError, match="no vmlinuz"):
        kernel_package.kernel(tmp_path)
    image = modules / "vmlinuz" if prefix else tmp_path / "boot/vmlinuz-9.1"
    image.parent.mkdir(exist_ok=True)
    image.touch()
    assert kernel_package.kernel(tmp_path) == image
    (modules.parent / "9.2").mkdir()
    with pytest.raises(NoKernelError, match="2 kernels"):
        kernel_package.modules(tmp_path)


def test_modules_are_loaded_after_those_they_need_and_once() -> None:
    dependencies = initial_file_system.parse_dependencies(
        "kernel/fs/ext4.ko.xz: kernel/fs/jbd2.ko.xz kernel/lib/crc16.ko.xz\n"
        "kernel/fs/jbd2.ko.xz: kernel/lib/crc16.ko.xz\n"
        "kernel/lib/crc16.ko.xz:\n"
        "kernel/drivers/virtio-blk.ko.xz:\n"
    )
    ordered = initial_file_system.in_order(dependencies, ["virtio_blk", "ext4", "jbd2", "built_in"])
    assert [initial_file_system.module_name(path) for path in ordered] == [
        "virtio_blk",
        "crc16",
        "jbd2",
        "ext4",
    ]


# ---- KVM ----


@pytest.fixture
def try_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Choose what runs guests, with a device that opens and an emulator that is this shell script."""

    def choose(script: str) -> str:
        program = tmp_path / "emulator"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        program.chmod(0o755)
        monkeypatch.setattr("tests.vm.emulator.PROGRAM", str(program))
        monkeypatch.setattr(acceleration, "KVM_DEVICE", program)
        return acceleration.choose(tmp_path / "kernel", tmp_path / "initrd")

    return choose


def test_kvm_is_taken_when_a_guest_boots_with_it(try_kvm: Callable[[str], str]) -> None:
    said = f'case "$*" in *"-accel kvm -cpu host"*guest.trial*) echo "{emulator.TRIAL_PASSED}";; esac'
    assert try_kvm(said) == emulator.KVM


@pytest.mark.parametrize("script", ["echo 'KVM: entry failed'", "exec sleep 60"], ids=["fails", "hangs"])
def test_a_device_that_opens_is_not_enough(
    try_kvm: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(acceleration, "TRIAL_SECONDS", 0.5)
    assert try_kvm(script) == emulator.EMULATION


def test_without_the_device_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "none")
    monkeypatch.setattr("tests.vm.emulator.PROGRAM", "/nonexistent")
    assert acceleration.choose(tmp_path, tmp_path) == emulator.EMULATION


@pytest.mark.parametrize(("boots", "whole"), [(True, True), (False, False)])
def test_an_image_made_with_kvm_is_made_again_where_kvm_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, boots: bool, whole: bool
) -> None:
    image = Image(tmp_path)
    assert not image.is_whole()
    image.disk.touch()
    monkeypatch.setattr("tests.vm.image.boots_with_kvm", lambda *_: boots)
    image.keep_machine(emulator.KVM, "max")
    assert image.is_whole() == whole
    image.keep_machine(emulator.EMULATION, "max")
    assert image.is_whole()


def test_the_first_program_of_a_guest_knows_the_words_of_the_trial() -> None:
    said = (GUEST_FILES / "init").read_text(encoding="utf-8")
    assert emulator.TRIAL_ARGUMENT in said
    assert emulator.TRIAL_PASSED in said


# ---- the kernel tests in a guest ----


def test_a_test_that_was_skipped_did_not_pass() -> None:
    suites = '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>'
    assert guest_tests.read_outcome(suites) == Outcome(9, 6)
    assert [str(Outcome(9, 6)), str(Outcome(9, 0))] == ["3 passed, 6 failed", "9 passed"]


def test_what_a_guest_is_given_runs_on_any_python() -> None:
    """Each is a package of this environment, and has nothing that was compiled for this one's version."""
    directory = guest_tests.packages_directory()
    names = guest_tests.package_names()
    assert {"pytest", "_pytest", "pluggy", "ansible"} <= set(names)
    assert all((directory / name).exists() for name in names)
    assert [path for name in names for path in (directory / name).rglob("*.so")] == []


# ---- the table of kernels ----


def test_the_table_has_a_column_for_each_kernel_and_a_reason_for_each_no() -> None:
    found = dict.fromkeys(capabilities.NAMES, "yes")
    lacking = {**found, "map_sockhash": "no: too old", "sk_msg_rdonly_cast": "no: why"}
    answers = [Answers("6.12.1", found, "9 passed"), Answers("6.2.9", lacking, kernels.NOT_RUN)]
    page = kernels.page(answers, ["tests/kernel/test_slots.py"]).splitlines()
    assert "|  | 6.2.9 | 6.12.1 |" in page
    assert "| **sockops** | no | yes |" in page
    assert "| `sk_msg_rdonly_cast` | no | yes |" in page
    assert "| `tests/kernel` | not run | 9 passed |" in page
    assert "The tests: `tests/kernel/test_slots.py`." in page
    assert page[-2:] == ["* 6.2.9, `map_sockhash`: no: too old", "* 6.2.9, `sk_msg_rdonly_cast`: no: why"]


def test_the_page_has_every_capability_there_is() -> None:
    """Otherwise write it anew: ./run kernels."""
    page = kernels.PAGE.read_text(encoding="utf-8")
    assert [name for name in capabilities.NAMES if f"| `{name}` |" not in page] == []


# ---- failures ----


def test_a_full_disk_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(BuildError, match="MB free, a build takes up to"):
        Builder(tmp_path).provide(Recipe(KERNELS[DEFAULT_KERNEL]))
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_nothing_and_says_which_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive, "find", lambda: Archive("http://127.0.0.1:1/debian", ()))
    monkeypatch.setattr(build, "PATH", "/nonexistent")
    (tmp_path / "build-of-a-killed-one").mkdir()
    with pytest.raises(BuildError, match=r"installing \d+ packages of bookworm: mmdebstrap is not installed"):
        Builder(tmp_path).provide(Recipe(KERNELS[DEFAULT_KERNEL]))
    assert list(tmp_path.iterdir()) == []
    assert "... failed" in capsys.readouterr().err


def test_a_program_that_fails_is_told_with_its_last_lines() -> None:
    with pytest.raises(BuildError, match=r"(?s)sh ended with 3:.*the reason"):
        build.call(["sh", "-c", "echo the reason; exit 3"])


def test_an_emulator_that_does_not_start_is_an_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(tmp_path / "image")
    image.directory.mkdir()
    for path in (image.disk, image.kernel, image.host_key):
        path.touch()
    image.keep_machine(emulator.EMULATION, "max")
    monkeypatch.setattr("tests.vm.emulator.PROGRAM", "false")
    with pytest.raises(GuestError, match="false ended with 1"):
        Guest.start(image, tmp_path / "guest")
    assert not Guest(tmp_path / "guest", image).is_running()


def test_a_process_that_took_over_the_number_is_not_ended(tmp_path: Path) -> None:
    guest = Guest(tmp_path / "guest", Image(tmp_path))
    guest.directory.mkdir()
    (guest.directory / "process_id").write_text("1", encoding="ascii")
    assert not guest.is_running()
    guest.stop()
    assert not guest.directory.exists()


# ---- the monitor ----


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Path]:
    """Something that answers like QEMU's monitor: with what it was told, or an error."""
    path = tmp_path / "monitor"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer, args=(listener,))
        thread.start()
        yield path
        thread.join()


def _answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw", encoding="utf-8") as stream:
        stream.write('{"QMP": {}}\n')
        stream.flush()
        for line in stream:
            command = json.loads(line)
            answer: dict[str, Any] = {"return": ""}
            if command["execute"] == "quit":
                return
            if "full" in command["arguments"].get("command-line", ""):
                answer = {"return": "Error: no space"}
            stream.write('{"event": "RESUME"}\n' + json.dumps(answer) + "\n")
            stream.flush()


def test_a_snapshot_that_fails_and_an_emulator_that_goes_are_errors(answering: Path) -> None:
    with Monitor(answering) as monitor:
        monitor.save("fits")
        with pytest.raises(MonitorError, match="no space"):
            monitor.save("full")
        with pytest.raises(MonitorError, match="closed its monitor"):
            monitor.quit()


def test_a_variant_is_another_image_with_packages_of_its_own() -> None:
    plain, bcc = (Recipe.of(DEFAULT_KERNEL, variant) for variant in ("plain", "bcc"))
    assert plain == Recipe(KERNELS[DEFAULT_KERNEL])
    assert set(bcc.packages) - set(plain.packages) == {"python3-bpfcc", "linux-headers-cloud-amd64"}
    assert bcc.digest() != plain.digest()


# ---- Molecule ----


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.parent.name)
def test_every_playbook_of_a_scenario_is_there(scenario: Path) -> None:
    """Molecule leaves out a playbook that it does not find, and calls that a success."""
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    own = yaml.safe_load(scenario.read_text(encoding="utf-8"))
    sequence = own.get("scenario", base["scenario"])["test_sequence"]
    playbooks = base["provisioner"]["playbooks"] | own["provisioner"].get("playbooks", {})
    named = [step.split()[1] for step in sequence if len(step.split()) > 1]
    default = [f"{name}.yml" for name in ("verify",)]
    for name in (*playbooks.values(), *named, *default):
        assert (scenario.parent / name).is_file(), name
    for platform in own["platforms"]:
        assert {"name", "kernel"} <= set(platform) <= {"name", "kernel", "address", "variant"}
    assert {"converge", "verify"} <= set(sequence)
    assert {"check", "idempotence"} <= set(base["scenario"]["test_sequence"])


# ---- networks of guests ----


def test_guests_of_a_network_share_its_port_and_differ_in_all_else() -> None:
    first = join("mesh", "10.77.0.1/24", [])
    other = join("other", "10.77.0.1/24", [first])
    second = join("mesh", "10.77.0.2/24", [other, first])
    assert (first.port == second.port, first.port == other.port) == (True, False)
    assert (first.hardware_address, second.hardware_address) == ("02:00:0a:4d:00:01", "02:00:0a:4d:00:02")
    assert "MACAddress=02:00:0a:4d:00:02" in second.configuration()
    assert "Address=10.77.0.2/24" in second.configuration()
    assert f"mcast={network.GROUP}:{first.port},localaddr=127.0.0.1" in " ".join(
        emulator.member(network.GROUP, first.port, first.hardware_address)
    )


def test_a_new_network_gets_no_port_that_emulators_have_at_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((network.GROUP, 0))
        monkeypatch.setattr(network, "ANY_FREE", taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            network.free_port()


@pytest.mark.parametrize("address", ["10.77.0.1/24", "10.77.0.256/24", "fd77::1/64", "client"])
def test_an_address_that_is_taken_or_none_is_refused(address: str) -> None:
    member = join("mesh", "10.77.0.1/24", [])
    with pytest.raises(AddressError, match=r"another guest's|give one such as 10\.77\.0\.1/24"):
        join("mesh", address, [member])


def test_a_membership_is_kept_with_its_guest_while_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = join("mesh", "10.77.0.1/24", [])
    member.write(tmp_path)
    assert Guest.find(tmp_path).membership is None
    monkeypatch.setattr(Guest, "is_running", lambda _: True)
    assert Guest.find(tmp_path).membership == member
    (tmp_path / network.FILE_NAME).unlink()
    assert Guest.find(tmp_path).membership is None


@pytest.mark.parametrize("words", [["--network", "mesh"], ["--address", "10.77.0.1/24"]])
def test_network_and_address_go_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["start", "client", *words])
    assert "go together" in capsys.readouterr().err
