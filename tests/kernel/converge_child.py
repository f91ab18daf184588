"""Converges a private sockops in a process of its own, so that a test can take rights from it.

Reads {"paths": ..., "object": ..., "cgroups": ...} on standard input. Writes the words of the error
that the operator would see, nothing when it worked.
"""

from __future__ import annotations

import json
import sys

from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.errors import MeshaccelError
from meshaccel.paths import NodePaths
from meshaccel.system import cgroups
from tests.kernel.installations import present


def main() -> None:
    """Converge as standard input says."""
    wish = json.load(sys.stdin)
    node = Sockops(NodePaths(**wish["paths"]), cgroups.hierarchy(), wish["object"])
    try:
        present(node, wish["cgroups"])
    except MeshaccelError as error:
        sys.stdout.write(str(error))


if __name__ == "__main__":
    main()
