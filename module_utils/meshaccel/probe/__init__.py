# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Measures a TCP endpoint, or a pair of its own, accelerated and not, side by side.

Live traffic is left alone: nothing is switched. The accelerated arm runs in a
child of the accelerated cgroup, the other in a child of the root cgroup.
"""

from .acceleration import sockops_counters
from .exchange import ProbeFailed
from .measurement import Counters, measure
from .settings import Settings

__all__ = ["Counters", "ProbeFailed", "Settings", "measure", "sockops_counters"]
