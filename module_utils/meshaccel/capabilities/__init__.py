# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node's kernel can do, asked of the kernel itself.

No configuration file and no version is read: a probe creates the map, loads the
program or moves the bytes, and lets go of everything again.
"""

from .catalogue import NAMES
from .needs import NEEDS, SOCKOPS_NEEDS, require
from .run import check_names, probe

__all__ = ["NAMES", "NEEDS", "SOCKOPS_NEEDS", "check_names", "probe", "require"]
