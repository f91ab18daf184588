# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""IPVS's settings below net.ipv4.vs: which ones, live and at boot, and the way back. The plan is pure.

They are of one network namespace, and exist only while ip_vs is loaded: one that
is loaded after systemd-sysctl has run has its defaults. So ip_vs is loaded at
boot by modules-load.d(5), which systemd-sysctl waits for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...engine import Handler
from ...errors import InvalidInput, NotOurs, Unsupported
from ...model import Action, Json, Plan
from ...system import sysctl
from . import owned_files

PREFIX = "net.ipv4.vs"
#: Behind all that distributions and 99-sysctl.conf set.
SETTINGS_FILE = "etc/sysctl.d/99-zz-meshaccel-ipvs.conf"
MODULES_FILE = "etc/modules-load.d/meshaccel-ipvs.conf"
MODULES_TEXT = (
    f"{owned_files.MARK}\n# systemd-sysctl, which runs later, sets what only a loaded ip_vs has.\nip_vs\n"
)
#: From here on a client's port that is used again costs a new connection no second (f0a5e4d7a594).
REUSE_WITHOUT_DELAY = (5, 9)
KEY = re.compile(rf"(?:{re.escape(PREFIX)}\.)?([a-z0-9_]+)")
#: Numbers, and lists of processors.
VALUE = re.compile(r"-?[0-9]+(?:[ ,-][0-9]+)*")
SET = "ipvs_bpf.kernel_setting"

Values = Mapping[str, str]


@dataclass(frozen=True)
class Observed:
    """What is there: live values by name, both files' texts (None: no such file), and what is read behind."""

    values: Values
    settings_file: str | None = None
    modules_file: str | None = None
    read_behind: tuple[sysctl.Assignment, ...] = ()

    @property
    def written(self) -> Values:
        """The values that our file sets."""
        return dict(parse_text(self.settings_file or ""))


# ---- what is wished ----


def parse(raw: Json) -> dict[str, str | None]:
    """Parses ``ipvs_bpf_kernel_settings``, {name: value}; null: leave it as it is. Raises InvalidInput."""
    if not isinstance(raw, Mapping):
        raise InvalidInput(
            wanted="a mapping for ipvs_bpf_kernel_settings",
            found=repr(raw),
            remedy="for example {run_estimation: 0}",
        )
    return dict(parse_setting(key, value) for key, value in raw.items())


def parse_setting(key: Json, value: Json) -> tuple[str, str | None]:
    """Parses one setting: its name, with or without net.ipv4.vs, and its value."""
    name = KEY.fullmatch(str(key))
    text = None if value is None else sysctl.normal(str(int(value) if isinstance(value, bool) else value))
    if name is None or (text is not None and not VALUE.fullmatch(text)):
        raise InvalidInput(
            wanted=f"settings below {PREFIX} and their values for ipvs_bpf_kernel_settings",
            found=f"{key!r}: {value!r}",
            remedy="for example {run_estimation: 0}; null leaves a setting as it is",
        )
    return f"{PREFIX}.{name[1]}", text


def wished(kernel: tuple[int, int], present: Values, own: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the values for a kernel: ours where it has the setting, the operator's over them.

    Raises Unsupported for a setting of the operator's that the kernel does not have.
    """
    missing = sorted(name for name, value in own.items() if value is not None and name not in present)
    if missing:
        raise Unsupported(
            wanted=f"to set {', '.join(missing)}",
            found="a kernel, or its ip_vs, without",
            remedy="take it out of ipvs_bpf_kernel_settings on this node",
        )
    ours = {
        "conntrack": "1",
        "conn_reuse_mode": "1" if kernel >= REUSE_WITHOUT_DELAY else "0",
        "expire_nodest_conn": "1",
        "expire_quiescent_template": "1",
        "sloppy_tcp": "0",
    }
    chosen = {**{f"{PREFIX}.{name}": value for name, value in ours.items()}, **own}
    return {name: value for name, value in sorted(chosen.items()) if value is not None and name in present}


def kernel_version() -> tuple[int, int]:
    """Returns the running kernel's version, such as (6, 1)."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


# ---- what is there ----


def observe(root: str = sysctl.ROOT) -> Observed:
    """Reads settings and files; without ip_vs there are no values."""
    read = {name: sysctl.read(name, root) for name in sysctl.names_below(PREFIX, root)}
    settings = owned_files.read(root, SETTINGS_FILE)
    return Observed(
        values={name: value for name, value in read.items() if value is not None},
        settings_file=settings,
        modules_file=owned_files.read(root, MODULES_FILE),
        read_behind=sysctl.read_behind(SETTINGS_FILE, root),
    )


# ---- plan ----


def make_plan(values: Values | None, observed: Observed, previous: Values) -> Plan:
    """Sets values, and has them set at boot; None: gives back what was there before.

    ``previous`` has the values before ours, by name. Raises NotOurs when a
    file of ours is not, or one that is read behind ours sets something else.
    """
    refuse_overridden(values or {}, observed)
    settings = None if values is None else text_of(values)
    modules = None if values is None else MODULES_TEXT
    # Our file tells which values are ours, so it goes when they are given back.
    return (
        *setting({**given_back(values or {}, observed, previous), **(values or {})}, observed),
        *owned_files.writing(SETTINGS_FILE, settings, observed.settings_file),
        *owned_files.writing(MODULES_FILE, modules, observed.modules_file),
    )


def to_keep(values: Values, observed: Observed, previous: Values) -> dict[str, str]:
    """Returns what has to be kept as ``previous``: what was there before ours, from the first time on."""
    return {name: previous.get(name, observed.values[name]) for name in values if name in observed.values}


def given_back(values: Values, observed: Observed, previous: Values) -> dict[str, str]:
    """Returns the earlier values of what is ours no more, but where somebody has changed it since."""
    return {
        name: previous[name]
        for name, ours in observed.written.items()
        if name not in values and name in previous and observed.values.get(name) == ours
    }


def setting(values: Values, observed: Observed) -> Plan:
    """Sets the live values that differ."""
    return tuple(
        Action(
            SET,
            f"{name} = {value}",
            {"name": name, "value": value},
            (Action(SET, f"{name} = {there}", {"name": name, "value": there}),),
        )
        for name, value in values.items()
        for there in (observed.values.get(name, value),)
        if there != value
    )


def text_of(values: Values) -> str:
    """Returns our file for systemd-sysctl. A leading dash: a missing ip_vs fails no other setting."""
    return "\n".join(
        (owned_files.MARK, *(f"-{name} = {value}" for name, value in sorted(values.items())), "")
    )


def parse_text(text: str) -> tuple[tuple[str, str], ...]:
    """Returns the names and values in our file."""
    lines = (line.removeprefix("-").partition(" = ") for line in text.splitlines() if " = " in line)
    return tuple((name, value) for name, _, value in lines)


def refuse_overridden(values: Values, observed: Observed) -> None:
    """Raises NotOurs when what is read behind our file sets one of these to something else."""
    for line in observed.read_behind:
        for name, value in values.items():
            if line.sets(name) and line.value != value:
                raise NotOurs(
                    wanted=f"{name} = {value} at boot",
                    found=f"/{line.path}, which is read behind ours and sets it to {line.value}",
                    remedy="take the line out there, or set the same in ipvs_bpf_kernel_settings",
                )


def handlers(root: str = sysctl.ROOT) -> dict[str, Handler]:
    """Returns the handlers of these actions."""

    def set_value(arguments: Mapping[str, Json]) -> None:
        sysctl.write(arguments["name"], arguments["value"], root)

    return {SET: set_value, **owned_files.handlers(root)}
