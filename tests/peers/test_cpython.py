"""CPython's own tests of its networking modules end as they do without sockops, but for what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.arms import compare
from tests.peers.bodies import MEBIBYTE
from tests.peers.cpython import Suite
from tests.peers.differences import accepted, differing
from tests.peers.pod import accelerated_pod

if TYPE_CHECKING:
    from pathlib import Path

#: By the group, what has to have run in it: cases, connections, bytes redirected.
LEAST = {"TLS": (300, 200, 5 * MEBIBYTE), "TCP": (800, 500, 50 * MEBIBYTE)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", LEAST)
def test_only_known_cases_differ(group: str, tmp_path: Path) -> None:
    suite = Suite.find()
    directories = iter((tmp_path / "off", tmp_path / "on"))
    with accelerated_pod("cpython", "suite") as pod:
        off, on = compare(pod.node, lambda: suite.run(group, pod.place("suite"), next(directories)))
    differences = differing(off.result, on.result)
    known = accepted("cpython").keys() & off.result.keys()
    assert differences.keys() == known, f"{differences}; what the runs wrote is in {tmp_path}"
    cases, connections, redirected = LEAST[group]
    assert len(off.result) > cases
    assert on.counted["connections_paired"] > connections
    assert on.redirected_bytes > redirected
