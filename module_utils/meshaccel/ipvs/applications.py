# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What IPVS's application modules, such as ip_vs_ftp, take part in: /proc/net/ip_vs_app (ip_vs_app.c)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

LISTING = "/proc/net/ip_vs_app"
HEADING_LINES = 1


def read(path: str = LISTING) -> dict[tuple[str, int], str]:
    """Returns the names of applications by the protocol and port whose packets they read and change."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as stream:
        return dict(parse(stream.read()))
    return {}


def parse(listing: str) -> Mapping[tuple[str, int], str]:
    """Parses the listing: a protocol, a port, how many use it, a name."""
    lines = (line.split() for line in listing.splitlines()[HEADING_LINES:])
    return {(words[0].lower(), int(words[1])): words[3] for words in lines}
