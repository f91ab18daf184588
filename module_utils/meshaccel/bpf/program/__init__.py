# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""One pinned program: desired -> observe -> plan (pure) -> handlers.

A program pinned as ``count`` has its maps in ``count_maps/`` and the links to its
cgroups, named by cgroup id, in ``count_links/``.
"""
