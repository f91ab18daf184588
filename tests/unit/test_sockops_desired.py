"""What an operator may wish of sockops, what is refused and in which words, and how the wish is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.sockops import desired
from meshaccel.accelerators.sockops.desired import (
    LATER_KEYS,
    CgroupWish,
    Desired,
    load_document,
    parse,
)
from meshaccel.errors import InvalidInput
from meshaccel.model import Mode
from meshaccel.ports import PortRange

if TYPE_CHECKING:
    from meshaccel.model import Json
    from meshaccel.system.cgroups import Hierarchy

UID = "0f5a3c1e-9b7d-4e2f-8a6b-1c2d3e4f5a6b"
UNDERSCORED = UID.replace("-", "_")
STATIC_POD_UID = "0123456789abcdef0123456789abcdef"


def ranges(*bounds: tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first, last) for first, last in bounds)


# ---- what is accepted ----


def test_without_anything_said_it_is_on_for_no_cgroup(hierarchy: Hierarchy) -> None:
    assert parse({}, hierarchy) == Desired(
        present=True,
        mode=Mode.ON,
        cgroups=(),
        maximum_connections=32768,
        receive_memory_limit=4 * 2**20,
        adopt_existing=False,
    )


def test_null_means_the_default(hierarchy: Hierarchy) -> None:
    assert parse(dict.fromkeys(desired.KEYS), hierarchy) == parse({}, hierarchy)


@pytest.mark.parametrize(
    ("written", "mode"),
    [("on", Mode.ON), ("off", Mode.OFF), ("drain", Mode.DRAIN), (True, Mode.ON), (False, Mode.OFF)],
    ids=["on", "off", "drain", "yaml-on", "yaml-off"],
)
def test_modes_are_words_and_the_booleans_that_yaml_makes_of_them(
    hierarchy: Hierarchy, written: Json, mode: Mode
) -> None:
    wished = parse({"mode": written, "cgroups": [{"path": "pods", "mode": written}]}, hierarchy)
    assert (wished.mode, wished.cgroups[0].mode) == (mode, mode)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        pytest.param([], (), id="none-means-all"),
        pytest.param([80], ranges((80, 80)), id="number"),
        pytest.param(["80"], ranges((80, 80)), id="text"),
        pytest.param(["8000-8100"], ranges((8000, 8100)), id="range"),
        pytest.param(["80-80"], ranges((80, 80)), id="range-of-one"),
        pytest.param([1, 65535, "1-65535"], ranges((1, 1), (1, 65535), (65535, 65535)), id="limits"),
        pytest.param([443, 80], ranges((80, 80), (443, 443)), id="sorted"),
        pytest.param([80, "80"], ranges((80, 80)), id="once"),
        pytest.param((80, 443), ranges((80, 80), (443, 443)), id="tuple"),
        pytest.param(list(range(1, 17)), ranges(*((n, n) for n in range(1, 17))), id="sixteen"),
    ],
)
def test_ports_are_numbers_and_ranges(
    hierarchy: Hierarchy, ports: Json, expected: tuple[PortRange, ...]
) -> None:
    assert parse({"ports": ports, "cgroups": ["pods"]}, hierarchy).cgroups[0].ports == expected


def test_ports_of_a_cgroup_come_before_those_of_all_even_when_they_are_none(hierarchy: Hierarchy) -> None:
    entries = ["a", {"path": "b", "ports": [443]}, {"path": "c", "ports": []}, {"path": "d", "ports": None}]
    wished = parse({"ports": [80], "cgroups": entries}, hierarchy)
    expected = [ranges((80, 80)), ranges((443, 443)), (), ranges((80, 80))]
    assert [cgroup.ports for cgroup in wished.cgroups] == expected


@pytest.mark.parametrize(
    ("key", "written", "number"),
    [
        ("maximum_connections", 1, 1),
        ("maximum_connections", "4194304", 4194304),
        ("receive_memory_limit", 65536, 65536),
        ("receive_memory_limit", 2**30, 2**30),
    ],
)
def test_numbers_within_their_limits_may_be_text(
    hierarchy: Hierarchy, key: str, written: Json, number: int
) -> None:
    assert getattr(parse({key: written}, hierarchy), key) == number


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("pods/one", "pods/one"),
        ("/MOUNT/pods/one/", "pods/one"),
        ("./pods//two/../one", "pods/one"),
        ("not-there-yet", "not-there-yet"),
        (".", "."),
        ("/MOUNT", "."),
    ],
)
def test_a_path_is_kept_relative_to_the_mount(hierarchy: Hierarchy, path: str, relative: str) -> None:
    written = path.replace("/MOUNT", hierarchy.mount)
    for entry in (written, {"path": written}):
        assert parse({"cgroups": [entry]}, hierarchy).cgroups[0].candidates == (relative,)


@pytest.mark.parametrize(
    ("unit", "candidates"),
    [
        ("nginx.service", ("system.slice/nginx.service",)),
        ("session-1.scope", ("system.slice/session-1.scope",)),
        ("mesh.slice", ("mesh.slice",)),
        ("a-b-c.slice", ("a.slice/a-b.slice/a-b-c.slice",)),
        (r"mesh-my\x2dapp.slice", (r"mesh.slice/mesh-my\x2dapp.slice",)),
        ("-.slice", (".",)),
        ("app@1.service", ("system.slice/system-app.slice/app@1.service", "system.slice/app@1.service")),
        (
            "my-app@1.service",
            (r"system.slice/system-my\x2dapp.slice/my-app@1.service", "system.slice/my-app@1.service"),
        ),
    ],
)
def test_a_systemd_unit_is_looked_for_where_systemd_puts_it(
    hierarchy: Hierarchy, unit: str, candidates: tuple[str, ...]
) -> None:
    wished = parse({"cgroups": [{"systemd_unit": unit}]}, hierarchy).cgroups[0]
    assert (wished.label, wished.candidates) == (unit, candidates)


@pytest.mark.parametrize(
    "candidate",
    [
        f"kubepods/pod{UID}",
        f"kubepods/burstable/pod{UID}",
        f"kubepods/besteffort/pod{UID}",
        f"kubepods.slice/kubepods-pod{UNDERSCORED}.slice",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice",
    ],
)
def test_a_pod_is_looked_for_in_each_class_under_both_cgroup_drivers(
    hierarchy: Hierarchy, candidate: str
) -> None:
    wished = parse({"cgroups": [{"kubernetes_pod": UID}]}, hierarchy).cgroups[0]
    assert candidate in wished.candidates
    assert len(wished.candidates) == 6


def test_a_static_pod_has_a_uid_without_dashes(hierarchy: Hierarchy) -> None:
    wished = parse({"cgroups": [{"kubernetes_pod": STATIC_POD_UID}]}, hierarchy).cgroups[0]
    assert f"kubepods.slice/kubepods-pod{STATIC_POD_UID}.slice" in wished.candidates


def test_255_cgroups_are_accepted(hierarchy: Hierarchy) -> None:
    names = [f"pod{number}" for number in range(255)]
    assert len(parse({"cgroups": names}, hierarchy).cgroups) == 255


# ---- what is refused ----


def cgroup(**entry: Json) -> dict[str, Json]:
    return {"cgroups": [entry]}


#: raw input, and a word that wanted, found and remedy each must have.
REFUSED: dict[str, tuple[dict[Any, Json], tuple[str, str, str]]] = {
    "port-0": ({"ports": [0]}, ("1 to 65535", "0", "correct")),
    "port-65536": ({"ports": [65536]}, ("1 to 65535", "65536", "correct")),
    "port-negative": ({"ports": [-1]}, ("port", "-1", "example")),
    "port-true": ({"ports": [True]}, ("port", "True", "example")),
    "port-float": ({"ports": [80.0]}, ("port", "80.0", "example")),
    "port-null": ({"ports": [None]}, ("port", "None", "example")),
    "port-word": ({"ports": ["http"]}, ("port", "http", "example")),
    "port-list": ({"ports": [[80]]}, ("port", "[80]", "example")),
    "port-superscript": ({"ports": ["²"]}, ("port", "²", "example")),
    "port-of-5000-digits": ({"ports": ["9" * 5000]}, ("port", "999", "example")),
    "range-backwards": ({"ports": ["80-70"]}, ("first not above last", "80-70", "correct")),
    "range-from-0": ({"ports": ["0-80"]}, ("1 to 65535", "0-80", "correct")),
    "range-open": ({"ports": ["80-"]}, ("port", "80-", "example")),
    "range-of-three": ({"ports": ["1-2-3"]}, ("port", "1-2-3", "example")),
    "range-spaced": ({"ports": ["80 - 90"]}, ("port", "80 - 90", "example")),
    "ports-0": ({"ports": 0}, ("list of ports", "0", "example")),
    "ports-false": ({"ports": False}, ("list of ports", "False", "example")),
    "ports-empty-text": ({"ports": ""}, ("list of ports", "''", "example")),
    "ports-text": ({"ports": "80"}, ("list of ports", "'80'", "example")),
    "ports-dictionary": ({"ports": {}}, ("list of ports", "{}", "example")),
    "ports-17": ({"ports": list(range(1, 18))}, ("at most 16", "17", "join")),
    "ports-0-of-a-cgroup": (cgroup(path="a", ports=0), ("list of ports", "0", "example")),
    "ports-17-of-a-cgroup": (cgroup(path="a", ports=list(range(1, 18))), ("at most 16", "17", "join")),
    "unknown-key": ({"mdoe": "on", "ports": []}, ("mode", "mdoe", "spelling")),
    "unknown-key-of-a-cgroup": (cgroup(path="a", port=1), ("ports", "port", "spelling")),
    "unknown-key-that-is-a-number": ({7: "x"}, ("only", "7", "spelling")),
    "state-word": ({"state": "gone"}, ("present, absent", "gone", "correct")),
    "state-true": ({"state": True}, ("present, absent", "True", "correct")),
    "mode-word": ({"mode": "On"}, ("on, off, drain", "'On'", "correct")),
    "mode-number": ({"mode": 1}, ("on, off, drain", "1", "correct")),
    "mode-list": ({"mode": ["on"]}, ("on, off, drain", "['on']", "correct")),
    "mode-of-a-cgroup": (cgroup(path="a", mode="no"), ("on, off, drain", "'no'", "correct")),
    "connections-0": ({"maximum_connections": 0}, ("1 to 4194304", "0", "correct")),
    "connections-too-many": ({"maximum_connections": 4194305}, ("1 to 4194304", "4194305", "correct")),
    "connections-true": ({"maximum_connections": True}, ("whole number", "True", "correct")),
    "connections-float": ({"maximum_connections": 1.5}, ("whole number", "1.5", "correct")),
    "connections-negative": ({"maximum_connections": -5}, ("whole number", "-5", "correct")),
    "connections-superscript": ({"maximum_connections": "²"}, ("whole number", "²", "correct")),
    "connections-empty": ({"maximum_connections": ""}, ("whole number", "''", "correct")),
    "connections-of-5000-digits": ({"maximum_connections": "9" * 5000}, ("number", "999", "correct")),
    "loader-misspelt": ({"loader": "bbc"}, ("libbpf, bcc", "'bbc'", "correct")),
    "adopt-a-word": ({"adopt_existing": "sometimes"}, ("true or false", "'sometimes'", "correct")),
    "memory-too-small": ({"receive_memory_limit": 65535}, ("from 65536", "65535", "correct")),
    "memory-too-large": ({"receive_memory_limit": 2**30 + 1}, ("1073741824", "1073741825", "correct")),
    "cgroups-text": ({"cgroups": "pods"}, ("list", "'pods'", "YAML list")),
    "cgroups-dictionary": ({"cgroups": {"path": "pods"}}, ("list", "pods", "YAML list")),
    "cgroups-false": ({"cgroups": False}, ("list", "False", "YAML list")),
    "cgroup-null": ({"cgroups": [None]}, ("path or a dictionary", "None", "see")),
    "cgroup-number": ({"cgroups": [5]}, ("path or a dictionary", "5", "see")),
    "cgroup-list": ({"cgroups": [["pods"]]}, ("path or a dictionary", "pods", "see")),
    "cgroup-empty": ({"cgroups": [{}]}, ("exactly one", "none", "one way")),
    "cgroup-named-twice": (cgroup(path="a", systemd_unit="a.slice"), ("exactly one", "path", "one way")),
    "path-empty": ({"cgroups": [""]}, ("path", "''", "example")),
    "path-list": (cgroup(path=["a"]), ("path", "['a']", "example")),
    "path-true": (cgroup(path=True), ("path", "True", "example")),
    "path-with-a-zero-byte": ({"cgroups": ["a\0b"]}, ("path", r"a\x00b", "example")),
    "path-outside": ({"cgroups": ["/etc"]}, ("below", "/etc", "below the mount")),
    "path-above": ({"cgroups": [".."]}, ("below", "'..'", "below the mount")),
    "path-out-and-beside": ({"cgroups": ["pods/../../cgroup2x"]}, ("below", "cgroup2x", "below")),
    "unit-without-a-kind": (cgroup(systemd_unit="nginx"), ("unit", "nginx", "nginx.service")),
    "unit-of-another-kind": (cgroup(systemd_unit="a.socket"), ("unit", "a.socket", "nginx.service")),
    "unit-with-a-slash": (cgroup(systemd_unit="../a.service"), ("unit", "../a", "nginx.service")),
    "unit-with-a-newline": (cgroup(systemd_unit="a.service\n"), ("unit", "\\n", "nginx.service")),
    "pod-short": (cgroup(kubernetes_pod="0f5a3c1e"), ("UID", "0f5a3c1e", "metadata.uid")),
    "pod-upper-case": (cgroup(kubernetes_pod=UID.upper()), ("UID", UID.upper(), "metadata.uid")),
    "pod-underscored": (cgroup(kubernetes_pod=UNDERSCORED), ("UID", UNDERSCORED, "metadata.uid")),
    "pod-with-a-newline": (cgroup(kubernetes_pod=UID + "\n"), ("UID", "\\n", "metadata.uid")),
    "twice": ({"cgroups": ["pods", "./pods"]}, ("once", "pods twice", "merge")),
    "twice-by-other-words": (
        {"cgroups": ["system.slice/web.service", {"systemd_unit": "web.service"}]},
        ("once", "system.slice/web.service twice", "merge"),
    ),
    "256-cgroups": ({"cgroups": [f"p{n}" for n in range(256)]}, ("at most 255", "256", "parents")),
    "wrong-though-absent": ({"state": "absent", "ports": [0]}, ("1 to 65535", "0", "correct")),
}


@pytest.mark.parametrize(("raw", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_in_words_that_help(
    hierarchy: Hierarchy, raw: dict[str, Json], words: tuple[str, str, str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(raw, hierarchy)
    error = caught.value
    said = (error.wanted, error.found, error.remedy)
    assert [word for word, part in zip(words, said, strict=True) if word not in part] == []


# ---- the file that keeps the wish ----

port_ranges = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(
    lambda bounds: PortRange(min(bounds), max(bounds))
)
wishes = st.builds(
    CgroupWish,
    label=st.text(),
    candidates=st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
    mode=st.sampled_from(Mode),
    ports=st.frozensets(port_ranges, max_size=16).map(lambda ports: tuple(sorted(ports))),
)
any_desired = st.builds(
    Desired,
    present=st.booleans(),
    mode=st.sampled_from(Mode),
    cgroups=st.lists(
        wishes.map(lambda entry: replace(entry, candidates=entry.candidates[:1])),
        unique_by=lambda entry: entry.candidates,
        max_size=4,
    ).map(tuple),
    maximum_connections=st.integers(1, 4194304),
    receive_memory_limit=st.integers(65536, 2**30),
)


@given(any_desired)
def test_a_kept_wish_is_read_back_as_it_was(wished: Desired) -> None:
    assert load_document(wished.document(), "file") == wished


@given(any_desired)
def test_the_same_wish_is_kept_in_the_same_bytes(wished: Desired) -> None:
    assert load_document(wished.document(), "file").document() == wished.document()


WISHED = Desired(
    adopt_existing=True,
    present=True,
    mode=Mode.ON,
    cgroups=(CgroupWish("a", ("a",), Mode.ON, ranges((80, 90))),),
    maximum_connections=10,
    receive_memory_limit=65536,
)


def edited(*path: str | int, value: Json = None, drop: bool = False) -> bytes:
    """Return the kept wish with one value replaced or dropped."""
    document = json.loads(WISHED.document())
    place = document
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document).encode()


DAMAGED = {
    "empty": b"",
    "cut-short": WISHED.document()[:-20],
    "no-text": b"\xff\xfe",
    "null": b"null",
    "list": b"[]",
    "unknown-key": edited("comment", value="edited"),
    "state-misspelt": edited("state", value="presnt"),
    "mode-misspelt": edited("mode", value="of"),
    "connections-0": edited("maximum_connections", value=0),
    "connections-true": edited("maximum_connections", value=True),
    "connections-float": edited("maximum_connections", value=1.5),
    "memory-negative": edited("receive_memory_limit", value=-1),
    "cgroups-text": edited("cgroups", value="a"),
    "cgroup-text": edited("cgroups", 0, value="a"),
    "candidates-text": edited("cgroups", 0, "candidates", value="abc"),
    "candidates-none": edited("cgroups", 0, "candidates", value=[]),
    "candidates-number": edited("cgroups", 0, "candidates", value=[1]),
    "cgroup-mode": edited("cgroups", 0, "mode", value="no"),
    "cgroup-port": edited("cgroups", 0, "ports", value=[0]),
    "cgroup-twice": edited("cgroups", value=json.loads(WISHED.document())["cgroups"] * 2),
    **{
        f"without-{key}": edited(key, drop=True)
        for key in json.loads(WISHED.document())
        if key not in LATER_KEYS
    },
    **{
        f"cgroup-without-{key}": edited("cgroups", 0, key, drop=True)
        for key in ("label", "candidates", "mode", "ports")
    },
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_an_error_that_names_it_and_never_a_guess(content: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_document(content, "/etc/meshaccel/sockops.json")
    assert "/etc/meshaccel/sockops.json" in caught.value.wanted
    assert "damaged or edited" in caught.value.found
    assert "playbook" in caught.value.remedy
