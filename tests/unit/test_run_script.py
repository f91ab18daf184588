"""./run, .ci/timed and the lock: what a fresh machine meets first.

`run` is sourced in a scratch checkout, so that a test can say what is missing and watch what is called. The
commands that would change the machine are stand-ins that write down how they were called.
"""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

MAKEFILE = """\
show: ## print the words of ARGS, one a line, and KEEP
\t@printf '[%s]\\n' $(ARGS) 'KEEP=$(KEEP)'
works: ## succeed
\t@true
breaks: ## fail
\t@false
"""

# Everything is there, and the stand-in makes an environment at once.
COMPLETE_MACHINE = """
PACKAGE_OF=()
find_python() { printf python-stand-in; }
"""

PYTHON_STAND_IN = """\
if [ "$2" = venv ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
fi
"""


@dataclass(frozen=True)
class Checkout:
    """A scratch checkout with `run`, a Makefile of its own and stand-ins for what changes the machine."""

    folder: Path
    stand_ins: Path

    def stand_in(self, name: str, body: str = "") -> None:
        """Put a command on PATH that writes down its words, then does `body`."""
        command = self.stand_ins / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls_file}"\n{body}')
        command.chmod(0o755)

    @property
    def calls_file(self) -> Path:
        return self.stand_ins / "calls"

    @property
    def policy_file(self) -> Path:
        return self.folder / "policy-rc.d"

    def calls(self) -> list[str]:
        """How the stand-ins that change something were called since the last look."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.unlink()
        return [line for line in lines if not line.startswith(("bpftool", "id"))]

    def run(self, *words: str, machine: str = COMPLETE_MACHINE) -> subprocess.CompletedProcess[str]:
        """`./run WORDS`, on the machine that the shell lines `machine` describe."""
        script = f'source ./run\npolicy_file={self.policy_file}\n{machine}\nmain "$@"'
        return execute(["bash", "-c", script, "run", *words], self.folder, {"PATH": self.path})

    @property
    def path(self) -> str:
        return f"{self.stand_ins}:{os.environ['PATH']}"


def execute(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    stand_ins = tmp_path / "bin"
    (folder / ".ci").mkdir(parents=True)
    stand_ins.mkdir()
    for name in ("run", ".ci/timed"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "requirements.lock").write_text("# first\n")
    checkout = Checkout(folder, stand_ins)
    checkout.stand_in("bpftool")
    checkout.stand_in("apt-get")
    checkout.stand_in("id", "echo 0\n")
    checkout.stand_in("update-rc.d")
    checkout.stand_in("python-stand-in", PYTHON_STAND_IN)
    return checkout


def machine_without(**packages: str) -> str:
    """A machine that lacks the commands named, each with the package that brings it."""
    entries = " ".join(f"[{command}-that-is-missing]={package}" for command, package in packages.items())
    return f"{COMPLETE_MACHINE}\nPACKAGE_OF=({entries})"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-k", "lo or veth"], ["-k", "lo or veth", "KEEP="]),
        (["it's", "$HOME", "$(pwd)"], ["it's", "$HOME", "$(pwd)", "KEEP="]),
        (["KEEP=1", "--pairs", "3"], ["--pairs", "3", "KEEP=1"]),
        (["--name=value"], ["--name=value", "KEEP="]),
    ],
)
def test_words_after_the_target_reach_its_recipe(
    checkout: Checkout, words: list[str], shown: list[str]
) -> None:
    result = checkout.run("show", *words)
    assert result.returncode == 0, result.stderr
    assert re.findall(r"^\[(.*)\]$", result.stdout, re.MULTILINE) == shown


def test_the_target_decides_the_exit_code(checkout: Checkout) -> None:
    assert checkout.run("works").returncode == 0
    assert checkout.run("breaks").returncode != 0


def test_no_target_lists_the_targets_and_sets_nothing_up(checkout: Checkout) -> None:
    result = checkout.run()
    assert result.returncode == 0
    assert re.findall(r"^  (\S+) +(\S+)", result.stdout, re.MULTILINE) == [
        ("show", "print"),
        ("works", "succeed"),
        ("breaks", "fail"),
    ]
    assert checkout.calls() == []


def test_an_unknown_target_fails_before_anything_is_installed(checkout: Checkout) -> None:
    result = checkout.run("shwo", machine=machine_without(tool="package"))
    assert result.returncode != 0
    assert "no target 'shwo'" in result.stderr
    assert checkout.calls() == []


def test_what_is_missing_is_installed_while_no_service_may_start(checkout: Checkout) -> None:
    checkout.stand_in("apt-get", f'"{checkout.policy_file}"; echo "policy $?" >>"{checkout.calls_file}"\n')
    result = checkout.run("works", machine=machine_without(wrk="wrk", nginx="nginx-light"))
    assert result.returncode == 0, result.stderr
    assert checkout.calls()[:5] == [
        "apt-get update",
        "policy 101",
        "apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=600 nginx-light wrk",
        "policy 101",
        "update-rc.d nginx disable",
    ]
    assert not checkout.policy_file.exists()


@pytest.mark.parametrize("apt_exit_code", [0, 100])
def test_the_administrators_own_service_policy_comes_back(checkout: Checkout, apt_exit_code: int) -> None:
    checkout.policy_file.write_text("the administrator's\n")
    checkout.policy_file.chmod(0o755)
    checkout.stand_in("apt-get", f"exit {apt_exit_code}\n")
    result = checkout.run("works", machine=machine_without(tool="package"))
    assert (result.returncode == 0) == (apt_exit_code == 0)
    assert checkout.policy_file.read_text() == "the administrator's\n"
    assert stat.S_IMODE(checkout.policy_file.stat().st_mode) == 0o755
    assert [path.name for path in checkout.folder.glob("policy-rc.d*")] == ["policy-rc.d"]


def test_a_failed_installation_shows_why_and_stops(checkout: Checkout) -> None:
    checkout.stand_in("apt-get", "echo 'E: no such mirror' >&2; exit 100\n")
    result = checkout.run("show", machine=machine_without(tool="package"))
    assert result.returncode != 0
    assert "E: no such mirror" in result.stderr
    assert "'apt-get' ended with 100" in result.stderr
    assert "KEEP=" not in result.stdout
    assert checkout.calls() == ["apt-get update"]
    assert not checkout.policy_file.exists()


def test_without_root_it_says_what_root_has_to_install(checkout: Checkout) -> None:
    checkout.stand_in("id", "echo 1000\n")
    result = checkout.run("works", machine=machine_without(wrk="wrk", nft="nftables"))
    assert result.returncode != 0
    assert "sudo apt-get install --no-install-recommends nftables wrk" in result.stderr
    assert checkout.calls() == []


def test_a_file_that_is_there_needs_no_package(checkout: Checkout) -> None:
    files = "[/etc/os-release]=one [/no/such/header.h]=two [/etc/os-*]=three [/etc/no-such-*]=four"
    machine = f"PACKAGE_OF=({files} [sh]=five [no-such-command]=six)"
    script = f"source ./run\n{machine}\nmissing_packages | sort"
    result = execute(["bash", "-c", script], checkout.folder, {})
    assert result.stdout.split() == ["four", "six", "two"]


@pytest.mark.parametrize(
    ("target", "added"),
    [("test-unit", []), ("test", ["vm"]), ("vm-image", ["vm"]), ("vagrant-box", ["vagrant", "vm"])],
)
def test_what_virtual_machines_need_comes_with_their_targets(
    checkout: Checkout, target: str, added: list[str]
) -> None:
    script = f"""source ./run
    {COMPLETE_MACHINE}
    VM_PACKAGE_OF=([no-such-vm]=vm)
    VAGRANT_PACKAGE_OF=([no-such-vagrant]=vagrant)
    adapt_to_target {target}
    missing_packages | sort"""
    result = execute(["bash", "-c", script], checkout.folder, {})
    assert result.stdout.split() == added


def test_the_environment_is_made_once(checkout: Checkout) -> None:
    checkout.run("works")
    assert checkout.calls() == [
        "python-stand-in -m venv --clear .venv",
        "python-stand-in -m pip install --disable-pip-version-check --require-hashes -r requirements.lock",
    ]
    checkout.run("works")
    assert checkout.calls() == []


@pytest.mark.parametrize("change", ["lock", "folder", "python"])
def test_the_environment_is_made_again_when_it_no_longer_holds(
    checkout: Checkout, tmp_path: Path, change: str
) -> None:
    checkout.run("works")
    checkout.calls()
    if change == "lock":
        (checkout.folder / "requirements.lock").write_text("# second\n")
    elif change == "folder":
        checkout = Checkout(checkout.folder.rename(tmp_path / "moved"), checkout.stand_ins)
    else:
        (checkout.folder / ".venv/bin/python").unlink()
    checkout.run("works")
    assert len(checkout.calls()) == 2


def test_an_environment_that_was_left_half_made_is_made_again(checkout: Checkout) -> None:
    checkout.stand_in("python-stand-in", PYTHON_STAND_IN + '[ "$2" != pip ]\n')
    assert checkout.run("works").returncode != 0
    checkout.stand_in("python-stand-in", PYTHON_STAND_IN)
    checkout.calls()
    assert checkout.run("works").returncode == 0
    assert len(checkout.calls()) == 2


def test_ubuntus_bpftool_wrapper_gives_way_to_the_newest_real_one(checkout: Checkout, tmp_path: Path) -> None:
    checkout.stand_in("bpftool", "exit 2\n")
    for version in ("5.15.0-9", "5.15.0-10"):
        tool = tmp_path / "linux-tools" / version / "bpftool"
        tool.parent.mkdir(parents=True)
        tool.touch()
    machine = f"{COMPLETE_MACHINE}\nubuntu_kernel_tools={tmp_path / 'linux-tools'}"
    assert checkout.run("works", machine=machine).returncode == 0
    assert (checkout.folder / "build/tools/bpftool").readlink().parent.name == "5.15.0-10"


def test_timed_targets_all_run_and_one_failure_fails_them(checkout: Checkout) -> None:
    result = execute([".ci/timed", "breaks", "works"], checkout.folder, {})
    assert result.returncode != 0
    assert re.findall(r"^(\w+) +(passed|FAILED) +\d+$", result.stdout, re.MULTILINE) == [
        ("breaks", "FAILED"),
        ("works", "passed"),
    ]
    assert execute([".ci/timed", "works", "works"], checkout.folder, {}).returncode == 0


def pinned_requirements() -> list[str]:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    groups = [settings["project"]["dependencies"], *settings["dependency-groups"].values()]
    return [requirement for group in groups for requirement in group]


@pytest.mark.parametrize("requirement", pinned_requirements())
def test_the_lock_has_every_pin_of_pyproject_with_hashes(requirement: str) -> None:
    assert re.fullmatch(r"[\w-]+==[\w.]+", requirement)
    lock = (PROJECT / "requirements.lock").read_text()
    assert re.search(rf"^{re.escape(requirement)} \\\n +--hash=sha256:[0-9a-f]{{64}}", lock, re.MULTILINE)


def test_the_lock_leaves_the_index_to_the_machine() -> None:
    lock = (PROJECT / "requirements.lock").read_text()
    assert not re.search(r"^-|://|find-links|index-url", lock, re.MULTILINE)
