"""The node's command: what it takes, what it says, and what it answers for each state of sockops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import command, metrics, record
from meshaccel.accelerators.sockops.command import status_lines
from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.engine import Result
from meshaccel.errors import InvalidInput, Unsupported
from meshaccel.model import Action, Json, Mode
from tests.support.accelerator import node_paths
from tests.unit.sockops_status import cgroup, status

if TYPE_CHECKING:
    from meshaccel import engine
    from meshaccel.paths import NodePaths
    from meshaccel.system.cgroups import Hierarchy

ACTION = Action("sockops.set_mode", "switch sockops on")
EXAMPLE_COLUMNS = 45
"""How far the command line goes in an example of the help; behind it stands what it is for."""
NO_IPVS_BPF = "ipvs_bpf  absent\n"
NOTHING_RESTORED = Result((), {}, {}, ())


@dataclass(frozen=True)
class KnownSockops(Sockops):
    """A sockops whose state is known; what it was asked to do is in `switched`, in order."""

    known_status: dict[str, Json] = field(default_factory=status)
    restored: Result = NOTHING_RESTORED
    adopting: bool = False
    switched: list[tuple[Mode, str | None] | str] = field(default_factory=list)

    def status(self) -> dict[str, Json]:
        return self.known_status

    def switch_live(self, mode: Mode, cgroup: str | None = None) -> None:
        self.switched.append((mode, cgroup))

    def hold(self, mode: Mode, cgroup: str | None = None) -> None:
        self.switched.append(f"held {mode.value} {cgroup}")

    def release(self) -> tuple[str, ...]:
        self.switched.append("released")
        return ("2 sockets hold bytes",)

    def adopts_existing(self) -> bool:
        return self.adopting

    def adopt(self) -> str:
        self.switched.append("adopted")
        return "adopted 3 of 4 live connections within this node"

    def restore(self, before_action: engine.BeforeAction = lambda _: None) -> Result:
        for action in self.restored.actions:
            before_action(action)
        return self.restored


Call = Callable[..., tuple[int, str, str]]
Known = Callable[..., KnownSockops]


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    """Return an installation of which no place, not even that of the pins, is the machine's."""
    return node_paths(tmp_path, tmp_path / "bpffs")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return what runs the command as root over a sockops: exit code, output and errors."""
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def run(sockops: Sockops, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(Sockops, "on_this_node", lambda _: sockops)
        monkeypatch.setattr(command, "NodePaths", lambda: sockops.paths)
        code = command.main(list(arguments))
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def known(paths: NodePaths, hierarchy: Hierarchy) -> Known:
    """Return what makes a sockops of known state."""
    return lambda **knowledge: KnownSockops(paths, hierarchy, "no object", **knowledge)


# ---- the command line ----


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["start"],
        ["off"],
        ["off", "vpp"],
        ["adopt", "ipvs_bpf"],
        ["follow"],
        ["follow", "sockops"],
        ["explain", "80", "--service", "10.0.0.1:80"],
        ["off", "sockops", "--cgroup"],
        ["off", "sockops", "everything"],
        ["status", "sockops"],
        ["adopt"],
        ["restore", "sockops"],
        ["metrics", "--json"],
        ["explain"],
        ["explain", "80", "--all"],
        ["explain", "80", "443"],
    ],
)
def test_what_is_no_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: meshaccel ")


def test_help_names_every_command_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in ("status", "explain", "on", "off", "drain", "adopt", "restore", "metrics"):
        assert f"\n    {word} " in shown
    assert "meshaccel off sockops --cgroup" in shown


@pytest.mark.parametrize("line", [line for line in command.EPILOG.splitlines() if "meshaccel " in line])
def test_the_examples_of_the_help_are_command_lines(line: str) -> None:
    program, *words = line[:EXAMPLE_COLUMNS].split()
    assert program == "meshaccel"
    assert command.parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("arguments", [["status"], ["off", "sockops"], ["restore"], ["metrics"]])
def test_without_root_nothing_is_looked_at(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(Sockops, "on_this_node", lambda _: pytest.fail("looked at the node"))
    assert command.main(arguments) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "meshaccel: run as root; only root may read and switch BPF\n")


# ---- switching ----


@pytest.mark.parametrize("mode", [Mode.ON, Mode.DRAIN])
@pytest.mark.parametrize(("path", "named"), [(None, ""), ("envoy.slice", " for envoy.slice")])
def test_modes_are_switched_for_the_node_or_one_cgroup(
    call: Call, known: Known, mode: Mode, path: str | None, named: str
) -> None:
    sockops = known()
    assert call(sockops, *switching(mode, path)) == (0, f"sockops {mode.value}{named}\n", "")
    assert sockops.switched == [(mode, path), f"held {mode.value} {path}"]


@pytest.mark.parametrize("path", [None, "envoy.slice"])
def test_off_switches_first_and_then_gives_connections_back(
    call: Call, known: Known, path: str | None
) -> None:
    sockops = known()
    code, output, errors = call(sockops, *switching(Mode.OFF, path))
    assert (code, errors) == (0, "")
    assert output.splitlines()[1:] == ["note: 2 sockets hold bytes"]
    assert sockops.switched == [(Mode.OFF, path), f"held off {path}", "released"]


def switching(mode: Mode, path: str | None) -> list[str]:
    """Return the words that switch the node or one cgroup."""
    return [mode.value, "sockops", *([] if path is None else ["--cgroup", path])]


@pytest.mark.parametrize(
    "error",
    [
        Unsupported(wanted="a cgroup2 hierarchy", found="none", remedy="mount it"),
        InvalidInput(wanted="cgroup b", found="a", remedy="see status"),
        PermissionError(13, "not permitted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_go_to_stderr_in_one_line(
    call: Call, known: Known, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(KnownSockops, "switch_live", fail)
    assert call(known(), "off", "sockops") == (1, "", f"meshaccel: {error}\n")


@pytest.mark.parametrize("arguments", [["off", "sockops"], ["drain", "sockops", "--cgroup", "pods"]])
def test_what_is_not_loaded_cannot_be_switched_and_is_not_held(
    call: Call, paths: NodePaths, hierarchy: Hierarchy, arguments: list[str]
) -> None:
    code, output, errors = call(Sockops(paths, hierarchy, ""), *arguments)
    assert (code, output) == (1, "")
    assert errors.startswith("meshaccel: wanted ")
    assert not Path(paths.holds).exists()


def test_switching_what_is_not_loaded_says_that_it_is_not_loaded(
    paths: NodePaths, hierarchy: Hierarchy
) -> None:
    with pytest.raises(InvalidInput, match=r"wanted sockops loaded, .* found it is not"):
        Sockops(paths, hierarchy, "").switch(Mode.OFF)


def test_adopt_says_what_came_of_it(call: Call, known: Known) -> None:
    sockops = known()
    assert call(sockops, "adopt", "sockops") == (0, "adopted 3 of 4 live connections within this node\n", "")
    assert sockops.switched == ["adopted"]


@pytest.mark.parametrize("adopting", [False, True])
def test_on_adopts_if_the_node_is_to(call: Call, known: Known, *, adopting: bool) -> None:
    sockops = known(adopting=adopting)
    code, output, _ = call(sockops, "on", "sockops")
    assert code == 0
    assert output.splitlines()[1:] == ["adopted 3 of 4 live connections within this node"] * adopting
    assert sockops.switched == [(Mode.ON, None), "held on None", *["adopted"] * adopting]


# ---- status ----


@pytest.mark.parametrize("state", ["absent", "incomplete"])
def test_what_is_not_working_is_said_in_a_word(call: Call, known: Known, state: str) -> None:
    assert call(known(known_status={"state": state}), "status") == (0, f"sockops  {state}\n{NO_IPVS_BPF}", "")


def test_status_shows_mode_table_share_cgroups_and_every_reason_for_tcp(call: Call, known: Known) -> None:
    cgroups = {
        "client.slice": cgroup(redirected_bytes=3000, tcp_bytes=1000, tcp_messages_memory=5, skipped_port=2),
        "server.slice": cgroup(mode="drain", sockets_inserted=7),
    }
    code, output, errors = call(known(known_status=status(cgroups, connections=3)), "status")
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "sockops  on",
        "  connections  3 of 32768",
        "  redirected   75.0% of 4000 bytes",
        "  cgroup client.slice  on  75.0% of 4000 bytes",
        "  cgroup server.slice  drain  no bytes yet",
        "  skipped_port  2",
        "  tcp_messages_memory  5",
        NO_IPVS_BPF.strip(),
    ]


def test_connections_that_were_handed_back_are_counted_by_their_two_sockets() -> None:
    lines = status_lines(status({"a": cgroup(sockets_handed_back=3), "b": cgroup(sockets_handed_back=3)}))
    assert "  handed back to TCP, as streams of small writes  3 connections" in lines
    assert not any("handed back" in line for line in status_lines(status()))


@pytest.mark.parametrize("target", ["nginx", "-5", "", "\uff18\uff10"])
def test_only_a_number_can_be_explained(call: Call, known: Known, target: str) -> None:
    code, output, errors = call(known(), "explain", "--", target)
    assert (code, output) == (1, "")
    assert errors == (
        "meshaccel: wanted the number of a process or a port; "
        f"found {target!r}; for example: meshaccel explain 8080\n"
    )


def test_nothing_is_explained_while_sockops_is_not_loaded(
    call: Call, paths: NodePaths, hierarchy: Hierarchy
) -> None:
    code, output, errors = call(Sockops(paths, hierarchy, ""), "explain", "--all")
    assert (code, output) == (1, "")
    assert errors.startswith("meshaccel: wanted sockops loaded, to explain its connections; found it is not")


def test_a_cgroup_that_runs_without_the_program_stands_out_with_what_to_do() -> None:
    lines = status_lines(status({"a": cgroup(attached=False), "b": cgroup()}))
    assert [line for line in lines if "NOT ATTACHED" in line] == [
        "  cgroup a  on  no bytes yet  NOT ATTACHED: run meshaccel restore"
    ]


def test_what_an_operator_holds_is_said_with_how_to_lift_it() -> None:
    held = {"mode": "off", "cgroups": {}}
    assert status_lines(status(mode="off", held=held))[0] == (
        "sockops  off  (held by an operator; lift with: meshaccel on sockops)"
    )


def test_a_cgroup_that_is_held_is_named_with_how_to_lift_it() -> None:
    """`meshaccel on sockops` leaves the holds of single cgroups as they are."""
    held = {"mode": None, "cgroups": {"a": "off"}}
    shown = "\n".join(status_lines(status({"a": cgroup(mode="off"), "b": cgroup()}, held=held)))
    assert "meshaccel on sockops --cgroup a" in shown
    assert "--cgroup b" not in shown


def test_a_run_that_was_killed_stands_out_and_one_that_ended_well_does_not() -> None:
    time = "2026-01-02T03:04:05Z"
    lines = command.unfinished_lines(
        {"sockops": {"phase": "applying", "time": time}, "node_runtime": {"phase": "done", "time": time}}
    )
    assert lines == [f"sockops  LAST RUN WAS INTERRUPTED, {time}; once mended: meshaccel restore"]


@pytest.mark.parametrize("entry", [[], "done", None, {}, {"phase": 7, "error": 1}], ids=repr)
def test_a_record_that_was_edited_by_hand_does_not_keep_status_from_being_shown(
    call: Call, known: Known, paths: NodePaths, entry: object
) -> None:
    record.write(paths, "node_runtime", {"phase": "done"})
    Path(paths.record).write_text(json.dumps({"sockops": entry}), encoding="utf-8")
    code, output, errors = call(known(), "status")
    assert (code, errors) == (0, "")
    assert output.startswith("sockops")


def test_json_has_the_whole_status_and_the_last_run_in_a_stable_order(
    call: Call, known: Known, paths: NodePaths
) -> None:
    record.write(paths, "sockops", {"phase": "done"})
    shuffled = dict(reversed(status({"b": cgroup(), "a": cgroup()}).items()))
    code, output, errors = call(known(known_status=shuffled), "status", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output) == {
        "sockops": shuffled,
        "ipvs_bpf": {"state": "absent"},
        "last_run": {"sockops": {"phase": "done"}},
    }
    assert call(known(known_status=status({"a": cgroup(), "b": cgroup()})), "status", "--json")[1] == output


def test_metrics_are_those_of_the_status_and_nothing_else(call: Call, known: Known) -> None:
    sockops = known()
    assert call(sockops, "metrics") == (0, metrics.render(sockops.status()), "")


# ---- restore ----


def test_restore_says_what_was_done_and_what_the_operator_should_know(
    call: Call, known: Known, paths: NodePaths
) -> None:
    restored = Result((ACTION,), {}, {}, ("2 sockets hold bytes",))
    wish_for(paths, "sockops")
    assert call(known(restored=restored), "restore") == (
        0,
        "switch sockops on\nnote: 2 sockets hold bytes\n",
        "",
    )
    assert record.read(paths)["sockops"]["phase"] == "done"


def test_restore_says_when_there_was_nothing_to_do(call: Call, known: Known, paths: NodePaths) -> None:
    wish_for(paths, "sockops")
    assert call(known(), "restore") == (0, "sockops: nothing to restore, all is as wished\n", "")
    assert not Path(paths.record).exists()


def test_a_wish_that_cannot_be_restored_keeps_no_other_back(
    call: Call, known: Known, paths: NodePaths
) -> None:
    wish_for(paths, "sockops")
    wish_for(paths, "ipvs_bpf", "{")
    code, output, errors = call(known(restored=Result((ACTION,), {}, {}, ())), "restore")
    assert (code, output) == (1, "switch sockops on\n")
    assert "ipvs_bpf.json; found a file that was damaged or edited by hand" in errors
    phases = {name: entry["phase"] for name, entry in record.read(paths).items()}
    assert phases == {"sockops": "done", "ipvs_bpf": "failed"}


def test_nothing_is_restored_where_nothing_was_wished(call: Call, known: Known) -> None:
    code, output, errors = call(known(), "restore")
    assert (code, output) == (1, "")
    assert "run the playbook first; there is nothing to restore" in errors


def wish_for(paths: NodePaths, accelerator: str, content: str = "{}") -> None:
    """Keep a wish, so that there is one to restore."""
    kept = Path(paths.desired(accelerator))
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file; run the playbook first"), (b"{", "damaged or edited by hand"), (b"", "damaged")],
    ids=["missing", "cut-short", "empty"],
)
def test_restore_without_a_readable_wish_says_what_to_do_and_so_does_status(
    call: Call, known: Known, paths: NodePaths, hierarchy: Hierarchy, content: bytes | None, said: str
) -> None:
    wish = Path(paths.desired("sockops"))
    if content is not None:
        wish.parent.mkdir()
        wish.write_bytes(content)
    code, output, errors = call(Sockops(paths, hierarchy, ""), "restore")
    assert (code, output) == (1, "")
    assert said in errors
    assert "playbook" in errors
    shown = call(known(), "status")[1]
    assert ("sockops  LAST RUN FAILED, 2" in shown) == (content is not None)
    assert (errors.removeprefix("meshaccel: ").strip() in shown) == (content is not None)
    assert Path(paths.record).exists() == (content is not None)
