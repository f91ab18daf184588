"""IPVS's kernel settings: which ones a kernel gets, in which order files win at boot, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf import kernel_settings as settings
from meshaccel.accelerators.ipvs_bpf.kernel_settings import PREFIX, SETTINGS_FILE
from meshaccel.errors import InvalidInput, NotOurs, Unsupported
from meshaccel.system import sysctl

if TYPE_CHECKING:
    from meshaccel.model import Json

#: As Linux 6.1 has them after ip_vs is loaded.
DEFAULTS = {
    "conn_reuse_mode": "1",
    "conntrack": "0",
    "expire_nodest_conn": "0",
    "expire_quiescent_template": "0",
    "run_estimation": "1",
    "sloppy_tcp": "0",
    "sync_threshold": "3\t50",
}
WISHED = {
    f"{PREFIX}.conn_reuse_mode": "1",
    f"{PREFIX}.conntrack": "1",
    f"{PREFIX}.expire_nodest_conn": "1",
    f"{PREFIX}.expire_quiescent_template": "1",
    f"{PREFIX}.sloppy_tcp": "0",
}
PRESENT = {f"{PREFIX}.{name}": " ".join(value.split()) for name, value in DEFAULTS.items()}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A node with systemd and ip_vs."""
    (tmp_path / sysctl.SYSTEMD).mkdir(parents=True)
    for name, value in DEFAULTS.items():
        write(tmp_path, f"proc/sys/net/ipv4/vs/{name}", value + "\n")
    return str(tmp_path)


def write(root: str | Path, path: str, text: str) -> None:
    target = Path(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="ascii")


def make(root: str, values: dict[str, str] | None, previous: dict[str, str]) -> bool:
    """Converge; returns whether anything changed. engine checks that the second plan is empty."""
    return engine.converge(
        lambda: settings.observe(root),
        lambda observed: settings.make_plan(values, observed, previous),
        settings.handlers(root),
    ).changed


# ---- what is wished ----


@pytest.mark.parametrize(
    ("kernel", "present", "own", "changes"),
    [
        pytest.param((6, 1), PRESENT, {}, {}, id="6.1"),
        pytest.param((5, 9), PRESENT, {}, {}, id="5.9"),
        pytest.param((5, 4), PRESENT, {}, {"conn_reuse_mode": "0"}, id="5.4"),
        pytest.param((6, 1), PRESENT, {"run_estimation": 0}, {"run_estimation": "0"}, id="on-request"),
        pytest.param((6, 1), PRESENT, {"sloppy_tcp": None}, {"sloppy_tcp": None}, id="left-alone"),
        pytest.param((6, 1), PRESENT, {f"{PREFIX}.conntrack": False}, {"conntrack": "0"}, id="full-name"),
        pytest.param(
            (6, 1), PRESENT, {"sync_threshold": "3  10"}, {"sync_threshold": "3 10"}, id="two-numbers"
        ),
        pytest.param((6, 1), {}, {}, dict.fromkeys(DEFAULTS), id="no-ip_vs"),
        pytest.param(
            (4, 18),
            {name: value for name, value in PRESENT.items() if "conntrack" not in name},
            {},
            {"conn_reuse_mode": "0", "conntrack": None},
            id="without-conntrack",
        ),
    ],
)
def test_the_values_for_a_kernel(
    kernel: tuple[int, int], present: dict[str, str], own: Json, changes: dict[str, str | None]
) -> None:
    expected = {**WISHED, **{f"{PREFIX}.{name}": value for name, value in changes.items()}}
    assert settings.wished(kernel, present, settings.parse(own)) == {
        name: value for name, value in expected.items() if value is not None
    }


def test_a_setting_the_kernel_does_not_have_is_named() -> None:
    with pytest.raises(Unsupported, match=r"net\.ipv4\.vs\.est_nice"):
        settings.wished((6, 1), PRESENT, settings.parse({"est_nice": 5, "run_estimation": 0}))


@pytest.mark.parametrize(
    "raw",
    [
        ["conntrack"],
        {"net.ipv4.ip_forward": 1},
        {"../../kernel/panic": 1},
        {"conntrack": "1\nnet.ipv4.ip_forward = 0"},
        {"conntrack": ""},
        {"conntrack": [1]},
        {1.5: 1},
    ],
)
def test_what_is_refused(raw: Json) -> None:
    with pytest.raises(InvalidInput, match="ipvs_bpf_kernel_settings"):
        settings.parse(raw)


def test_the_running_kernel_s_version() -> None:
    assert settings.kernel_version() >= (3, 0)


# ---- there and back ----


def test_values_are_set_now_and_at_boot_and_given_back(root: str) -> None:
    before = settings.observe(root)
    previous = settings.to_keep(WISHED, before, {})
    assert make(root, WISHED, previous)
    assert not make(root, WISHED, previous)
    now = settings.observe(root)
    assert {**before.values, **WISHED} == now.values
    assert now.written == WISHED
    assert now.modules_file is not None
    assert now.modules_file.splitlines()[-1] == "ip_vs"
    # What was there first is kept, not what is there now.
    assert settings.to_keep(WISHED, now, previous) == previous
    assert make(root, None, previous)
    assert not make(root, None, previous)
    assert settings.observe(root) == before


def test_what_is_wished_no_more_is_given_back(root: str) -> None:
    more = {**WISHED, f"{PREFIX}.run_estimation": "0"}
    previous = settings.to_keep(more, settings.observe(root), {})
    make(root, more, previous)
    assert make(root, WISHED, previous)
    assert settings.observe(root).values == {**PRESENT, **WISHED}


def test_what_somebody_else_has_set_since_stays_theirs(root: str) -> None:
    previous = settings.to_keep(WISHED, settings.observe(root), {})
    make(root, WISHED, previous)
    write(root, "proc/sys/net/ipv4/vs/conntrack", "2\n")
    assert make(root, None, previous)
    assert settings.observe(root).values == {**PRESENT, f"{PREFIX}.conntrack": "2"}


def test_what_was_there_after_a_plan_that_is_undone(root: str) -> None:
    before = settings.observe(root)
    plan = settings.make_plan(WISHED, before, {})
    engine.apply(plan, settings.handlers(root))
    assert engine.undo(plan, settings.handlers(root)) == ()
    assert settings.observe(root) == before


@pytest.mark.parametrize("wished", [WISHED, None])
@pytest.mark.parametrize("done", range(5))
def test_a_run_that_was_killed_anywhere_is_gone_on_with(
    root: str, done: int, wished: dict[str, str] | None
) -> None:
    before = settings.observe(root)
    previous = settings.to_keep(WISHED, before, {})
    if wished is None:
        make(root, WISHED, previous)
    plan = settings.make_plan(wished, settings.observe(root), previous)
    assert len(plan) == 5
    engine.apply(plan[:done], settings.handlers(root))
    assert make(root, wished, previous)
    expected = before.values if wished is None else {**before.values, **WISHED}
    assert settings.observe(root).values == expected


def test_absent_after_ip_vs_was_unloaded(root: str) -> None:
    previous = settings.to_keep(WISHED, settings.observe(root), {})
    make(root, WISHED, previous)
    for name in DEFAULTS:
        Path(root, "proc/sys/net/ipv4/vs", name).unlink()
    assert make(root, None, previous)
    assert settings.observe(root) == settings.Observed({})


def test_a_file_of_our_name_that_somebody_else_wrote_stays(root: str) -> None:
    write(root, SETTINGS_FILE, "net.ipv4.vs.conntrack = 1\n")
    for values in (WISHED, None):
        with pytest.raises(NotOurs, match="99-zz-meshaccel-ipvs"):
            make(root, values, {})


# ---- who wins at boot ----


@pytest.mark.parametrize(
    ("path", "text", "wins"),
    [
        ("etc/sysctl.d/99-zzz.conf", "net.ipv4.vs.conntrack = 0", True),
        ("usr/lib/sysctl.d/zz-vendor.conf", "net/ipv4/vs/conntrack=0", True),
        ("run/sysctl.d/99-zzz.conf", "-net.ipv4.vs.conn* = 0", True),
        ("etc/sysctl.d/99-zzz.conf", "net.ipv4.vs.conntrack = 1", False),
        ("etc/sysctl.d/99-zzz.conf", "# net.ipv4.vs.conntrack = 0\n; net.ipv4.vs.conntrack = 0", False),
        ("etc/sysctl.d/99-zzz.conf", "net.ipv4.vs.cache_bypass = 1\nnonsense", False),
        ("etc/sysctl.d/99-zzz.text", "net.ipv4.vs.conntrack = 0", False),
        ("etc/sysctl.d/99-sysctl.conf", "net.ipv4.vs.conntrack = 0", False),
        ("usr/lib/sysctl.d/50-default.conf", "net.ipv4.vs.conntrack = 0", False),
        # systemd-sysctl reads it by the symlink 99-sysctl.conf, if at all.
        ("etc/sysctl.conf", "net.ipv4.vs.conntrack = 0", False),
    ],
)
def test_what_is_read_behind_our_file(root: str, path: str, text: str, wins: bool) -> None:
    write(root, path, text + "\n")
    if not wins:
        assert make(root, WISHED, {})
        return
    with pytest.raises(NotOurs, match=f"/{path}, which is read behind ours and sets it to 0"):
        make(root, WISHED, {})
    assert settings.observe(root).settings_file is None
    assert not make(root, None, {})


def test_a_file_of_a_directory_before_masks_its_namesake(root: str) -> None:
    write(root, "usr/lib/sysctl.d/99-zzz.conf", "net.ipv4.vs.conntrack = 0\n")
    write(root, "etc/sysctl.d/10-other.conf", "")
    Path(root, "etc/sysctl.d/99-zzz.conf").symlink_to("/dev/null")
    assert make(root, WISHED, {})


def test_without_systemd_sysctl_conf_is_read_last(root: str) -> None:
    Path(root, sysctl.SYSTEMD).rmdir()
    write(root, "etc/sysctl.conf", "net.ipv4.vs.conntrack = 0\n")
    with pytest.raises(NotOurs, match=r"/etc/sysctl\.conf, which is read behind"):
        make(root, WISHED, {})
