"""The metrics: text that Prometheus takes, with every counter under its cgroup."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel import metrics
from meshaccel.accelerators.sockops.layout import COUNTER_NAMES
from meshaccel.model import Json, Mode
from tests.support.exposition import Family, parse
from tests.unit.sockops_status import cgroup, status

PREFIX = "meshaccel_sockops_"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def read(**changes: Json) -> dict[str, Family]:
    """Return the metrics of a status, read strictly."""
    return parse(metrics.render(status(**changes)))


@pytest.mark.parametrize("mode", Mode)
def test_the_mode_in_force_is_1_and_the_others_are_0(mode: Mode) -> None:
    family = read(mode=mode.value)[f"{PREFIX}mode"]
    assert family.kind == "gauge"
    assert family.samples == {(("mode", other.value),): float(other is mode) for other in Mode}


def test_the_table_shows_how_full_it_is() -> None:
    families = read(connections=7, maximum_connections=100)
    assert families[f"{PREFIX}connections"].samples == {(): 7}
    assert families[f"{PREFIX}maximum_connections"].samples == {(): 100}
    assert families[f"{PREFIX}connections"].kind == families[f"{PREFIX}maximum_connections"].kind == "gauge"


def test_every_counter_is_there_for_every_cgroup() -> None:
    numbers = {name: number for number, name in enumerate(COUNTER_NAMES)}
    gone = dict.fromkeys(COUNTER_NAMES, 9)
    families = read(
        cgroups={"a": {**cgroup(), "counters": numbers}, "gone (id 7)": {**cgroup(), "counters": gone}}
    )
    for name, number in numbers.items():
        family = families[f"{PREFIX}{name}_total"]
        assert family.kind == "counter"
        assert family.samples == {(("cgroup", "a"),): number, (("cgroup", "gone (id 7)"),): 9}


def test_numbers_are_written_in_full() -> None:
    written = metrics.render(status({"a": cgroup(redirected_bytes=2**64 - 1)}))
    assert f'{PREFIX}redirected_bytes_total{{cgroup="a"}} 18446744073709551615\n' in written


def test_each_metric_says_in_words_what_it_is() -> None:
    helps = {name: family.help for name, family in read().items()}
    assert len(set(helps.values())) == len(helps) == len(COUNTER_NAMES) + 3
    assert helps[f"{PREFIX}tcp_messages_memory_total"] == "Tcp messages memory."


@given(st.lists(TEXT, min_size=1, max_size=4, unique=True))
def test_a_cgroup_may_have_any_name(names: list[str]) -> None:
    families = parse(metrics.render(status({name: cgroup() for name in names})))
    samples = families[f"{PREFIX}redirected_bytes_total"].samples
    assert set(samples) == {(("cgroup", name),) for name in names}


def test_without_cgroups_the_node_s_own_metrics_remain() -> None:
    assert set(read(cgroups={})) == {
        f"{PREFIX}{name}" for name in ("mode", "connections", "maximum_connections")
    }


@pytest.mark.parametrize("state", ["absent", "incomplete"])
def test_what_is_not_there_has_no_metrics(state: str) -> None:
    assert metrics.render({"state": state}) == ""


# ---- the reader used here ----


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# HELP a A.\n# TYPE a gauge\na 1", "does not end"),
        ("a 1\n", "outside its metric"),
        ("# TYPE a gauge\na 1\n", "does not follow its HELP"),
        ("# HELP a A.\n# TYPE a gauge\n", "no samples of a"),
        ("# HELP a A.\n# TYPE a counter\na 1\n", "a is a counter"),
        ("# HELP a_total A.\n# TYPE a_total counter\na_total -1\n", "counter a_total is -1"),
        ("# HELP a A.\n# TYPE a gauge\na one\n", "could not convert"),
        ("# HELP a A.\n# TYPE a gauge\na 1\na 2\n", "twice"),
        ('# HELP a A.\n# TYPE a gauge\na{b="\\d"} 1\n', "neither"),
        ('# HELP a A.\n# TYPE a gauge\na{b="c",b="d"} 1\n', "a label twice"),
        ('# HELP a A.\n# TYPE a gauge\na{b="c} 1\n', "neither"),
        ("# HELP a A.\n# TYPE a gauge\n\na 1\n", "neither"),
        ("# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n# TYPE b gauge\nb 1\na 2\n", "outside its metric"),
        ("# HELP a A.\n# TYPE a gauge\na 1\n# HELP a A.\n# TYPE a gauge\na 2\n", "a second HELP"),
    ],
)
def test_the_reader_takes_nothing_malformed(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_the_reader_takes_what_is_well_formed() -> None:
    written = '# HELP a A.\n# TYPE a gauge\na{b="x\\"\\\\\\n",c=""} 1.5\na 2\n'
    assert parse(written)["a"].samples == {(("b", 'x"\\\n'), ("c", "")): 1.5, (): 2}
    assert parse("") == {}
