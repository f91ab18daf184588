# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""meshaccel: accelerators for service-mesh nodes, as declared state.

This package knows nothing of Ansible. The modules in ``library/`` and the
node's own command ``meshaccel`` call the same functions.
"""

__version__ = "0.1.0"
