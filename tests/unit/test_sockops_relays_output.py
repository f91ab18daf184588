"""What an operator reads of relays: status lines and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshaccel import metrics
from meshaccel.accelerators.sockops.command import status_lines
from meshaccel.accelerators.sockops.relays.layout import COUNTER_NAMES, SIDED_COUNTER_NAMES
from tests.support.exposition import parse
from tests.unit.sockops_status import status

if TYPE_CHECKING:
    from meshaccel.model import Json


def relay(port: int = 1, **counted: int) -> dict[str, Json]:
    """Return one relay's status; counters are zero where not named."""
    sides = {name: {"from": 0, "to": 0} for name in SIDED_COUNTER_NAMES}
    return {
        "from": f"127.0.0.1:{port}",
        "to": f"[::1]:{port}",
        "joined": 3,
        "waiting": {"from": 2, "to": 0},
        "counters": {**sides, **dict.fromkeys(COUNTER_NAMES, 0), **counted},
    }


def test_a_relay_is_one_line_and_one_for_each_reason() -> None:
    found = relay(skipped_queue_full=7, packets_dropped=1)
    found["counters"]["joined_bytes"] = {"from": 100, "to": 23}
    lines = status_lines(status(relays=[found]))
    assert lines[-3:] == [
        "  relay 127.0.0.1:1 - [::1]:1  3 joined, 2 and 0 waiting, 123 bytes",
        "    skipped_queue_full  7",
        "    packets_dropped  1",
    ]


def test_no_relay_is_no_line_and_no_metric() -> None:
    assert not any("relay" in line.split() for line in status_lines(status()))
    assert not any("_relay_" in name for name in parse(metrics.render(status())))


def test_every_counter_of_every_relay_is_a_metric() -> None:
    families = parse(metrics.render(status(relays=[relay(1, skipped_mode=5), relay(2)])))
    for name in COUNTER_NAMES:
        samples = families[f"meshaccel_sockops_relay_{name}_total"].samples
        assert list(samples.values()) == [5.0 if name == "skipped_mode" else 0.0, 0.0]
    for name in SIDED_COUNTER_NAMES:
        assert len(families[f"meshaccel_sockops_relay_{name}_total"].samples) == 4
    waiting = families["meshaccel_sockops_relay_waiting"].samples
    assert waiting[("from", "127.0.0.1:1"), ("side", "from"), ("to", "[::1]:1")] == 2.0
    assert len(families["meshaccel_sockops_relay_joined"].samples) == 2
