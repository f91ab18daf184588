# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The package that is on the node already, put to use when it is the one that is wished.

Most runs find a node as it should be, and all the code that such a run needs
lies on the node. So what travels at every run is this, which hashes that code
and calls it, and not the code itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Protocol

from . import release
from .errors import MeshaccelError
from .model import Json
from .paths import NodePaths

PACKAGE = "meshaccel"


class NodePlan(Protocol):
    """What is used of the installed package's NodePlan; importing ours would send all that it needs."""

    @property
    def roles(self) -> list[str]:
        """The roles to run, in order."""

    @property
    def drift(self) -> dict[str, list[str]]:
        """What each part that is not as wished needs, in words."""

    @property
    def before(self) -> dict[str, Json]:
        """What was observed, by part."""

    @property
    def after(self) -> dict[str, Json]:
        """What the roles lead to, by part."""


def plan_node(wishes: Mapping[str, Mapping[str, Json] | None], paths: NodePaths) -> NodePlan | None:
    """Has the installed package plan the node; None when it is not the one that is wished.

    That is so when no release is installed, when another one is, when a file of
    it was edited, and when the wishes name none. Changes nothing. Raises what
    the installed plan_node() raises, and MeshaccelError when the node's Python
    cannot import the package.
    """
    wished = (wishes.get("node_runtime") or {}).get("digest")
    # A release is never changed once it is selected: what is hashed is what is imported, even when
    # another run selects a new one in between.
    directory = os.path.realpath(paths.release)
    if not wished or release.installed_digest(directory) != wished:
        return None
    with importing_from(directory):
        return plan_with(load("node", directory), load("errors", directory), wishes, paths)


def plan_with(
    node: ModuleType,
    errors: ModuleType,
    wishes: Mapping[str, Mapping[str, Json] | None],
    paths: NodePaths,
) -> NodePlan:
    """Calls the installed plan_node(); its errors, of a class of its own, become ours."""
    try:
        plan: NodePlan = node.plan_node(wishes, paths)
    except errors.MeshaccelError as error:
        raise MeshaccelError(wanted=error.wanted, found=error.found, remedy=error.remedy) from error
    return plan


@contextlib.contextmanager
def importing_from(directory: str) -> Iterator[None]:
    """Has Python import from a directory, and write no bytecode there, for the length of a block."""
    wrote_none = sys.dont_write_bytecode
    sys.path.insert(0, directory)
    # The release was compiled when it was installed. A run that changes nothing writes nothing.
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote_none
        sys.path.remove(directory)


def load(name: str, directory: str) -> ModuleType:
    """Imports a module of the installed package; raises MeshaccelError when that fails in whatever way."""
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except Exception as error:
        raise MeshaccelError(
            wanted=f"the installed package in {directory}, which is the one wished for, to run",
            found=f"{type(error).__name__}: {error} (Python {platform.python_version()}, {sys.executable})",
            remedy="give the node an ansible_python_interpreter from 3.9 on with its whole standard library",
        ) from error
