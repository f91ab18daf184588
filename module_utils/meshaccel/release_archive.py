# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node release as an archive: built on the controller, unpacked on the node.

``python -m meshaccel.release_archive build`` writes a manifest and an archive;
the archive travels to the node inside one module call.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import zlib
from collections.abc import Mapping

from .errors import InvalidInput
from .release import BPF_SUFFIXES, OBJECT_SUFFIX, SOURCE_SUFFIX, digest_of
from .system import files

PACKAGE = "meshaccel"
OBJECT_DIRECTORY = "bpf"
#: The object digest that BPF programs carry: 8 bytes.
OBJECT_DIGEST_CHARACTERS = 16


def collect(package_directory: str, object_directory: str) -> dict[str, bytes]:
    """Reads the files of a release, by their name in it. The objects' sources lie beside them."""
    contents: dict[str, bytes] = {}
    for directory, _, names in os.walk(package_directory):
        for name in (name for name in names if name.endswith(SOURCE_SUFFIX)):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, package_directory)
            contents[os.path.join(PACKAGE, relative)] = read_bytes(path)
    for directory, _, names in os.walk(object_directory):
        for name in (name for name in names if name.endswith(BPF_SUFFIXES)):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, object_directory)
            contents[os.path.join(OBJECT_DIRECTORY, relative)] = read_bytes(path)
    return contents


def pack(contents: Mapping[str, bytes]) -> str:
    """Returns a release as base64 of a gzipped tar; equal contents, equal text."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(contents[name]))
    return base64.b64encode(gzip.compress(raw.getvalue(), mtime=0)).decode()


def unpack(archive: str) -> dict[str, bytes]:
    """Returns the files of a packed release.

    Raises InvalidInput for text that is no release, or a name that leads out.
    """
    try:
        raw = io.BytesIO(gzip.decompress(base64.b64decode(archive, validate=True)))
        with tarfile.open(fileobj=raw) as unpacked:
            return {
                checked_name(entry.name): (unpacked.extractfile(entry) or io.BytesIO()).read()
                for entry in unpacked.getmembers()
                if entry.isfile()
            }
    except (ValueError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InvalidInput(
            wanted="a node release",
            found=f"an archive that cannot be unpacked ({error})",
            remedy="build it again: ./run node-release",
        ) from error


def checked_name(name: str) -> str:
    """Returns a name inside a release; raises InvalidInput when it leads out."""
    if os.path.isabs(name) or ".." in name.split("/"):
        raise InvalidInput(
            wanted="files inside the release",
            found=repr(name),
            remedy="build the release again: ./run node-release",
        )
    return name


def install(library: str, digest: str, archive: str) -> str:
    """Writes a release into a new directory below library; returns its name.

    Raises InvalidInput when the archive is not what the digest says. Nothing
    uses the release before select().
    """
    contents = unpack(archive)
    if digest_of(contents) != digest:
        raise InvalidInput(
            wanted=f"the node release {digest[:OBJECT_DIGEST_CHARACTERS]}",
            found="an archive with other contents",
            remedy="build it again: ./run node-release",
        )
    files.make_directory(library)
    name = f"{digest[:OBJECT_DIGEST_CHARACTERS]}-{os.urandom(4).hex()}"
    for relative, content in contents.items():
        files.write(os.path.join(library, name, relative), content)
    return name


def read_bytes(path: str) -> bytes:
    """Returns a file's bytes."""
    with open(path, "rb") as stream:
        return stream.read()


def build(package_directory: str, object_directory: str) -> tuple[dict[str, object], str]:
    """Returns a release's manifest and its archive."""
    contents = collect(package_directory, object_directory)
    objects = {
        os.path.basename(name)[: -len(OBJECT_SUFFIX)]: hashlib.sha256(content).hexdigest()[
            :OBJECT_DIGEST_CHARACTERS
        ]
        for name, content in contents.items()
        if name.endswith(OBJECT_SUFFIX)
    }
    return {"digest": digest_of(contents), "objects": objects}, pack(contents)


def main(arguments: list[str] | None = None) -> int:
    """Builds a release from the command line."""
    parser = argparse.ArgumentParser(prog="meshaccel.release_archive", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="write OUTPUT and OUTPUT with .archive")
    building.add_argument("--bpf-directory", required=True)
    building.add_argument("--output", required=True, help="the manifest, a JSON file")
    chosen = parser.parse_args(arguments)
    manifest, archive = build(os.path.dirname(os.path.abspath(__file__)), chosen.bpf_directory)
    files.write(os.path.abspath(chosen.output), (json.dumps(manifest) + "\n").encode())
    stem = os.path.splitext(os.path.abspath(chosen.output))[0]
    files.write(stem + ".archive", archive.encode())
    print(f"node release {manifest['digest']}: {len(archive)} bytes to send")
    return 0


if __name__ == "__main__":
    sys.exit(main())
