"""The BPF objects that tests compile: small ones of their own, and changed builds of sockops.

All are named here, so that they can be brought to where there is no compiler.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.directories import temporary_directory
from tests.support.prebuilt import is_prebuilt
from tests.support.processes import run

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "objects"
PRODUCT_SOURCES = ROOT / "bpf"
BUILT = ROOT / "build" / "kernel-tests"
COMPILE = ("clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
BUILD_SECONDS = 120.0
SOCKOPS = "sockops.bpf.o"


@dataclass(frozen=True)
class Variant:
    """Sockops with a piece of one of its sources replaced."""

    name: str
    source: str
    old: str
    new: str


MARK = 1_000
#: Another version: it counts every redirected message for a thousand.
MARKED_MESSAGES = Variant(
    "marked-messages",
    "sockops/message.h",
    "count->redirected_messages++;",
    f"count->redirected_messages += {MARK};",
)
MARKED_BYTES = 1 << 40
#: Another version: its relays count every packet that is joined for a terabyte more.
MARKED_RELAYS = Variant(
    "marked-relays",
    "sockops_relay/stream.h",
    "count->joined_bytes[side] += packet->len;",
    f"count->joined_bytes[side] += packet->len + {MARKED_BYTES}ull;",
)
#: The package would read its counters wrongly.
OTHER_LAYOUT = Variant(
    "other-layout",
    "include/meshaccel/sockops.h",
    "__u64 connections_paired;",
    "__u64 unknown;\n\t__u64 connections_paired;",
)
#: It writes beyond a map's value, which the verifier refuses.
OUT_OF_BOUNDS = Variant(
    "out-of-bounds",
    "sockops/message.h",
    "count->redirected_messages++;",
    "((volatile __u64 *)count)[1000]++;",
)
VARIANTS = (MARKED_MESSAGES, MARKED_RELAYS, OTHER_LAYOUT, OUT_OF_BOUNDS)
VERSIONS = (1, 2)


def everything() -> None:
    """Compile all that the tests may ask for."""
    foreign()
    classifier()
    for version in VERSIONS:
        count_connections(version)
    for each in VARIANTS:
        variant(each)


def foreign() -> Path:
    """Return a sock_ops program of somebody else."""
    return _own("foreign", "foreign")


def classifier() -> Path:
    """Return a tc program that marks every packet, by the names of ours and of somebody else."""
    return _own("classifier", "classifier")


def count_connections(version: int) -> Path:
    """Return a version of a program that counts connections in that entry of its map, from 1."""
    return _own("count_connections", f"count_{version}", f"-DVERSION={version}")


@cache
def variant(wanted: Variant) -> Path:
    """Return a changed build of sockops, with all of its objects beside it.

    Raises ValueError when the piece does not occur exactly once: the source has moved on.
    """
    built = BUILT / wanted.name
    if is_prebuilt():
        return built / SOCKOPS
    with temporary_directory(wanted.name) as directory:
        sources, output = Path(directory) / "bpf", Path(directory) / "built"
        shutil.copytree(PRODUCT_SOURCES, sources)
        changed = sources / wanted.source
        text = changed.read_text(encoding="utf-8")
        if text.count(wanted.old) != 1:
            raise ValueError(f"{wanted.source} has {wanted.old!r} {text.count(wanted.old)} times, not once")
        changed.write_text(text.replace(wanted.old, wanted.new), encoding="utf-8")
        run(["make", "-s", "-C", str(sources), f"OUTPUT={output}"], timeout=BUILD_SECONDS)
        built.mkdir(parents=True, exist_ok=True)
        for compiled in output.glob("*.bpf.o"):
            # Another run may be using the file that is there.
            shutil.move(compiled, built / compiled.name)
    return built / SOCKOPS


@cache
def _own(source: str, name: str, *definitions: str) -> Path:
    """Compile a source of the tests as bpf/Makefile compiles."""
    built = BUILT / f"{name}.bpf.o"
    if is_prebuilt():
        return built
    BUILT.mkdir(parents=True, exist_ok=True)
    with temporary_directory("object") as directory:
        output = Path(directory) / built.name
        headers = f"/usr/include/{os.uname().machine}-linux-gnu"
        words = ["-idirafter", headers, "-c", str(SOURCES / f"{source}.bpf.c"), "-o", str(output)]
        run([*COMPILE, *definitions, *words])
        return Path(shutil.move(output, built))
