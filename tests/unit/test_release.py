"""The node release: unpacked as it was packed, refused when it is something else, swapped in whole."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meshaccel import release, release_archive
from meshaccel.errors import InvalidInput
from tests.support.background import repeating

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENTS = {
    "meshaccel/__init__.py": b"",
    "meshaccel/command.py": b"print('on')\n",
    "bpf/sockops.bpf.o": b"\x7fELF\0\xff",
}
DIGEST = release.digest_of(CONTENTS)
SWAPS = 500

WORDS = st.text("abcdefgh_", min_size=1, max_size=6)
NAMES = st.builds(
    lambda directories, stem, suffix: "/".join([*directories, stem + suffix]),
    st.lists(WORDS, max_size=3),
    WORDS,
    st.sampled_from([release.SOURCE_SUFFIX, release.OBJECT_SUFFIX]),
)
RELEASES = st.dictionaries(NAMES, st.binary(max_size=64), max_size=5)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return where releases go; nothing is there yet."""
    return tmp_path / "library"


def install(library: Path, contents: Mapping[str, bytes] = CONTENTS) -> Path:
    """Install a release and return its directory."""
    digest = release.digest_of(contents)
    return library / release_archive.install(str(library), digest, release_archive.pack(contents))


def entries(library: Path) -> set[str]:
    """Return the names of everything in the directory of releases."""
    return {path.name for path in library.iterdir()}


def archive_of(entry: tarfile.TarInfo) -> str:
    """Return an archive that pack() would not make."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(entry)
    return base64.b64encode(gzip.compress(raw.getvalue())).decode()


# ---- packing ----


@given(RELEASES)
def test_what_was_packed_is_unpacked(contents: dict[str, bytes]) -> None:
    assert release_archive.unpack(release_archive.pack(contents)) == contents


@given(RELEASES)
def test_equal_contents_give_equal_text_in_whatever_order_they_were_found(contents: dict[str, bytes]) -> None:
    reversed_contents = dict(reversed(contents.items()))
    assert release_archive.pack(reversed_contents) == release_archive.pack(contents)
    assert release.digest_of(reversed_contents) == release.digest_of(contents)


def test_equal_contents_give_equal_text_at_whatever_time_they_are_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = set()
    for seconds in (0, 1_000_000_000):
        monkeypatch.setattr("time.time", lambda seconds=seconds: seconds)
        packed.add(release_archive.pack(CONTENTS))
    assert len(packed) == 1


@given(RELEASES, RELEASES)
def test_other_contents_have_another_digest(contents: dict[str, bytes], others: dict[str, bytes]) -> None:
    assume(contents != others)
    assert release.digest_of(contents) != release.digest_of(others)


@pytest.mark.parametrize(
    ("contents", "others"),
    [({"ab": b"c"}, {"a": b"bc"}), ({"a": b"", "b": b""}, {"a": b"b"}), ({"a": b"1\0b"}, {"a\x001": b"b"})],
)
def test_a_digest_tells_where_a_name_ends_and_a_file_begins(
    contents: dict[str, bytes], others: dict[str, bytes]
) -> None:
    assert release.digest_of(contents) != release.digest_of(others)


# ---- refusing ----


@pytest.mark.parametrize("name", ["{folder}/x.py", "../x.py", "meshaccel/../../x.py", ".."])
def test_a_name_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """Names within the test's own folder: code that is broken must do no harm to the machine."""
    name = name.format(folder=tmp_path)
    contents = {**CONTENTS, name: b"not to be written"}
    with pytest.raises(InvalidInput) as caught:
        install(tmp_path / "a" / "library", contents)
    assert caught.value.found == repr(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_only_files_come_out_of_an_archive(kind: bytes) -> None:
    entry = tarfile.TarInfo("meshaccel")
    entry.type, entry.linkname = kind, "/etc"
    assert release_archive.unpack(archive_of(entry)) == {}


@given(st.data())
def test_damage_anywhere_in_an_archive_is_refused_or_did_no_harm(data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(release_archive.pack(CONTENTS)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidInput):
        assert release_archive.unpack(base64.b64encode(raw).decode()) == CONTENTS


@given(st.integers(min_value=0, max_value=len(release_archive.pack(CONTENTS)) - 1))
def test_an_archive_cut_short_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match="cannot be unpacked"):
        release_archive.unpack(release_archive.pack(CONTENTS)[:length])


@pytest.mark.parametrize("text", ["no base64 at all", "é", base64.b64encode(b"no gzip").decode()])
def test_text_that_is_no_archive_is_refused_and_the_error_says_what_to_do(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        release_archive.unpack(text)
    assert "./run node-release" in caught.value.remedy


@pytest.mark.parametrize("digest", [release.digest_of({}), DIGEST[:16], "../../etc", ""])
def test_an_archive_that_is_not_what_the_digest_says_is_not_installed(library: Path, digest: str) -> None:
    with pytest.raises(InvalidInput, match="an archive with other contents"):
        release_archive.install(str(library), digest, release_archive.pack(CONTENTS))
    assert not library.exists()


# ---- installed and selected ----


def test_an_installed_release_is_not_used_before_it_is_selected(library: Path) -> None:
    installed = install(library)
    assert release.selected(str(library)) is None
    assert release.installed_digest(str(library / release.CURRENT)) is None

    release.select(str(library), installed.name)

    assert release.selected(str(library)) == installed.name
    assert release.installed_digest(str(library / release.CURRENT)) == DIGEST


def test_a_release_is_installed_beside_one_of_the_same_contents(library: Path) -> None:
    first, second = install(library), install(library)
    assert release.names(str(library)) == tuple(sorted((first.name, second.name)))
    assert release.installed_digest(str(first)) == release.installed_digest(str(second)) == DIGEST


@settings(max_examples=20)
@given(contents=RELEASES)
def test_an_installed_release_has_the_digest_of_its_contents(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    # A name may not be a file and a directory at once.
    assume(not any(other.startswith(f"{name}/") for name in contents for other in contents))
    library = tmp_path_factory.mktemp("library")
    assert release.installed_digest(str(install(library, contents))) == (
        release.digest_of(contents) if contents else None
    )


def test_whoever_looks_while_releases_are_swapped_finds_one_of_them(library: Path) -> None:
    names = {install(library).name, install(library).name}
    release.select(str(library), min(names))
    with repeating(lambda: release.selected(str(library))) as seen:
        for _ in range(SWAPS):
            for name in names:
                release.select(str(library), name)
    assert set(seen) == names
    assert entries(library) == {release.CURRENT, *names}


def test_selecting_none_leaves_the_releases_and_may_be_done_twice(library: Path) -> None:
    installed = install(library)
    release.select(str(library), installed.name)
    for _ in range(2):
        release.select(str(library), None)
        assert release.selected(str(library)) is None
    assert release.names(str(library)) == (installed.name,)


def test_a_directory_that_is_not_there_has_no_releases_and_is_removed_already(library: Path) -> None:
    assert release.names(str(library)) == ()
    assert release.selected(str(library)) is None
    release.remove_all(str(library))


def test_one_release_is_removed_and_then_all(library: Path) -> None:
    first, second = install(library), install(library)
    release.remove(str(library), first.name)
    assert release.names(str(library)) == (second.name,)
    release.remove_all(str(library))
    assert not library.exists()


def test_what_a_killed_swap_left_is_no_release_and_is_removed(library: Path) -> None:
    installed = install(library)
    release.select(str(library), installed.name)
    (library / f"{release.CURRENT}.0a1b2c3d").symlink_to(installed.name)
    assert release.names(str(library)) == (installed.name,)
    release.remove_half_done(str(library))
    assert entries(library) == {release.CURRENT, installed.name}


# ---- what the digest of an installed release sees ----


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"#")


@pytest.mark.parametrize("name", CONTENTS)
def test_an_edited_file_is_seen(library: Path, name: str) -> None:
    installed = install(library)
    append(installed / name)
    assert release.installed_digest(str(installed)) not in (None, DIGEST)


@pytest.mark.parametrize("name", CONTENTS)
def test_a_missing_file_is_seen(library: Path, name: str) -> None:
    installed = install(library)
    (installed / name).unlink()
    assert release.installed_digest(str(installed)) not in (None, DIGEST)


@pytest.mark.parametrize("name", ["meshaccel/added.py", "bpf/added.bpf.o", "added.py"])
def test_an_added_file_is_seen(library: Path, name: str) -> None:
    installed = install(library)
    append(installed / name)
    assert release.installed_digest(str(installed)) not in (None, DIGEST)


def test_what_python_compiled_is_not_part_of_a_release(library: Path) -> None:
    installed = install(library)
    cache = installed / "meshaccel" / "__pycache__"
    cache.mkdir()
    append(cache / "command.cpython-311.pyc")
    assert release.installed_digest(str(installed)) == DIGEST


# ---- building ----


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Return a package and a directory of BPF objects, each with more in it than a release takes."""
    package, objects = tmp_path / "package", tmp_path / "objects"
    (package / "system" / "__pycache__").mkdir(parents=True)
    objects.mkdir()
    (objects / "source").mkdir()
    for path in (
        package / "__init__.py",
        package / "system" / "files.py",
        objects / "sockops.bpf.o",
        objects / "source" / "sockops.bpf.c",
    ):
        path.write_text(path.name)
    for path in (
        package / "notes.txt",
        package / "system" / "__pycache__" / "files.pyc",
        objects / "sockops.d",
    ):
        path.write_text("not for nodes")
    return package, objects


def test_a_release_is_the_package_and_the_bpf_objects_with_their_sources_and_nothing_else(
    sources: tuple[Path, Path],
) -> None:
    manifest, archive = release_archive.build(*map(str, sources))
    assert release_archive.unpack(archive) == {
        "meshaccel/__init__.py": b"__init__.py",
        "meshaccel/system/files.py": b"files.py",
        "bpf/sockops.bpf.o": b"sockops.bpf.o",
        "bpf/source/sockops.bpf.c": b"sockops.bpf.c",
    }
    assert manifest["digest"] == release.digest_of(release_archive.unpack(archive))


def test_a_manifest_has_the_digest_that_each_loaded_object_shows(sources: tuple[Path, Path]) -> None:
    manifest, _ = release_archive.build(*map(str, sources))
    assert manifest["objects"] == {"sockops": hashlib.sha256(b"sockops.bpf.o").hexdigest()[:16]}


def test_the_command_line_writes_a_release_that_can_be_installed(
    sources: tuple[Path, Path], library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "build" / "node_release.json"
    arguments = ["build", "--bpf-directory", str(sources[1]), "--output", str(output)]

    assert release_archive.main(arguments) == 0

    digest = json.loads(output.read_text())["digest"]
    archive = output.with_suffix(".archive").read_text()
    name = release_archive.install(str(library), digest, archive)
    assert release.installed_digest(str(library / name)) == digest
    assert (library / name / "meshaccel" / "release.py").read_bytes() == Path(release.__file__).read_bytes()
    assert f"{digest}: {len(archive)} bytes" in capsys.readouterr().out
