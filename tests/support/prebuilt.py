"""Where tests run without a compiler, as in virtual machines: what they need built was built elsewhere."""

from __future__ import annotations

import os

VARIABLE = "MESHACCEL_PREBUILT"


def is_prebuilt() -> bool:
    """Whether whoever started the tests brought all that is compiled."""
    return VARIABLE in os.environ
