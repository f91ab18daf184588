# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Python's collector of cycles, out of the way of work on a hundred thousand small tuples."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Has nothing searched for cycles for the length of a block, or of a function that it decorates.

    Services and servers refer to nothing that refers to them, so counting references is
    enough; searching all of them again and again took half of a run over 10,000 services.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
