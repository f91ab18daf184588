"""Programs compiled on the node: what bcc is asked for, what it answers, and what is to be installed."""

from __future__ import annotations

import io
import json
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.object_file import Objects
from meshaccel.bpf import bcc_compiler, loaders, node_built
from meshaccel.bpf.loaders import Loader
from meshaccel.bpf.object_file import ObjectFile, observe_object
from meshaccel.errors import NotOurs, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = {"text": "int built_one(void *context) { return 1; }", "flags": [], "programs": ["built_one"]}
DIGEST = "0123456789abcdef"


def python(tmp_path: Path, script: str) -> str:
    """Return a program that stands for Python with what it would answer."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\ncat > {tmp_path}/request\n{script}\n")
    path.chmod(0o755)
    return str(path)


def compiled(tmp_path: Path, script: str) -> dict[str, bytes]:
    return node_built.compiled(REQUEST, python(tmp_path, script), str(tmp_path))


# ---- what is asked for ----


def test_the_main_file_has_a_function_for_each_program() -> None:
    assert node_built.main_file("one.bpf.c", ["first", "second"]) == (
        '#include "one.bpf.c"\n'
        "int built_first(void *context) { return first(context); }\n"
        "int built_second(void *context) { return second(context); }\n"
    )


def test_a_symbol_is_named_by_its_address_and_by_0_where_the_kernel_has_none(tmp_path: Path) -> None:
    symbols = tmp_path / "kallsyms"
    symbols.write_text("ffffffff81000000 T _text\nffffffff810f0010 t wanted\t[module]\n")
    flags = node_built.symbol_flags(str(symbols), ["wanted", "missing"])
    assert flags == ["-DSYMBOL_wanted=0xffffffff810f0010", "-DSYMBOL_missing=0x0"]


def test_the_compiler_gets_the_request_and_gives_each_program(tmp_path: Path) -> None:
    assert compiled(tmp_path, """echo '{"built_one": "95000000"}'""") == {"one": b"\x95\0\0\0"}
    assert json.loads((tmp_path / "request").read_text()) == REQUEST


def test_bcc_gets_text_and_flags(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, object]] = []

    def bpf(**arguments: object) -> SimpleNamespace:
        asked.append(arguments)
        return SimpleNamespace(dump_func=lambda name: name.encode())

    monkeypatch.setitem(sys.modules, "bcc", SimpleNamespace(BPF=bpf))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(REQUEST)))
    assert bcc_compiler.main() == 0
    assert asked == [{"text": REQUEST["text"], "cflags": []}]
    assert json.loads(capsys.readouterr().out) == {"built_one": b"built_one".hex()}


def test_the_compiler_says_when_there_is_no_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(REQUEST)))
    assert bcc_compiler.main() == bcc_compiler.MISSING


# ---- what may be missing ----


def test_without_bcc_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"No module named 'bcc'; .*python3-bpfcc"):
        compiled(tmp_path, f"echo \"No module named 'bcc'\" >&2; exit {bcc_compiler.MISSING}")


def test_without_the_system_s_python_too(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="python3-bpfcc"):
        node_built.compiled(REQUEST, str(tmp_path / "none"), str(tmp_path))


def test_without_headers_the_package_is_named_with_the_running_kernel(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=f"linux-headers-{os.uname().release} "):
        node_built.compiled(REQUEST, "/bin/false", str(tmp_path / "none" / "{release}"))


def test_an_error_of_the_compiler_is_told_and_its_noise_is_not(tmp_path: Path) -> None:
    script = """
    echo "sockops.bpf.c:3:1: warning: something" >&2
    echo "sockops.bpf.c:7:2: error: no member named 'x'" >&2
    echo "Exception: Failed to compile BPF module <text>" >&2
    exit 1"""
    with pytest.raises(Unsupported) as raised:
        compiled(tmp_path, script)
    assert raised.value.found == "sockops.bpf.c:7:2: error: no member named 'x'"


def test_a_compiler_that_dies_of_something_else_is_told_by_its_last_lines() -> None:
    said = "\n".join(f"line {number}" for number in range(20))
    assert node_built.reason(said).startswith("line 14 | line 15")
    assert node_built.reason("") == "it did not say why"


# ---- which version runs ----


def test_who_loads_and_the_kernel_it_is_compiled_for_are_part_of_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Loader.BCC.identity(DIGEST)
    assert Loader.LIBBPF.identity(DIGEST) == DIGEST
    assert here == Loader.BCC.identity(DIGEST)
    assert here != DIGEST
    assert len(here) == len(DIGEST)
    assert Loader.BCC.identity(DIGEST[::-1]) != here
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="7.0.0-next"))
    assert Loader.BCC.identity(DIGEST) != here


def test_another_loader_is_another_version_of_both_objects() -> None:
    one, other = (Objects.find("/lib/sockops.bpf.o", DIGEST, DIGEST, loader) for loader in Loader)
    assert one.accelerator is not None
    assert other.accelerator is not None
    assert one.relays is not None
    assert other.relays is not None
    assert one.accelerator.digest != other.accelerator.digest
    assert one.relays.digest != other.relays.digest


@pytest.mark.parametrize("loader", Loader)
def test_an_action_names_the_object_it_was_planned_for(tmp_path: Path, loader: Loader) -> None:
    path = tmp_path / "sockops.bpf.o"
    path.write_bytes(b"an object")
    planned = observe_object(str(path), loader)
    assert planned is not None
    named = ObjectFile.given(planned.arguments())
    assert named == planned
    named.check()
    path.write_bytes(b"another object")
    with pytest.raises(NotOurs, match=f"for {loader.value}"):
        named.check()


def test_a_kernel_without_btf_takes_no_iterators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loaders, "KERNEL_BTF", str(tmp_path))
    assert layout.programs() == (*layout.PROGRAMS, *layout.ITERATORS)
    monkeypatch.setattr(loaders, "KERNEL_BTF", str(tmp_path / "none"))
    assert layout.programs() == layout.PROGRAMS
