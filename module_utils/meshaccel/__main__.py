# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Lets ``python -m meshaccel`` be the node's command."""

import sys

from .command import main

sys.exit(main())
