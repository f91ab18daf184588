# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The one error that reaches an operator."""

from __future__ import annotations


class MeshaccelError(Exception):
    """Says what was wanted, what was found and what to do about it."""

    def __init__(self, *, wanted: str, found: str, remedy: str) -> None:
        super().__init__(f"wanted {wanted}; found {found}; {remedy}")
        self.wanted = wanted
        self.found = found
        self.remedy = remedy


class InvalidInput(MeshaccelError):
    """The desired state is not valid; the node was not touched."""


class Unsupported(MeshaccelError):
    """The node lacks something the desired state needs."""


class NotOurs(MeshaccelError):
    """Something without our mark stands where ours should go."""


class Busy(MeshaccelError):
    """Another run of meshaccel holds this node."""


class ApplyFailed(MeshaccelError):
    """An action failed; what had been done was undone in reverse order.

    ``undo_errors`` is empty when the node is back where it was.
    """

    def __init__(self, *, wanted: str, found: str, remedy: str, undo_errors: tuple[str, ...]) -> None:
        super().__init__(wanted=wanted, found=found, remedy=remedy)
        self.undo_errors = undo_errors
