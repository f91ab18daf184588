"""The bits of the packet mark that ipvs_bpf uses beside kube-proxy's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.desired import Desired, load_document, parse
from meshaccel.accelerators.ipvs_bpf.masquerade import Decisions
from meshaccel.accelerators.ipvs_bpf.resolution import resolve
from meshaccel.accelerators.ipvs_bpf.selection import Selection, select
from meshaccel.accelerators.ipvs_bpf.state import Surroundings
from meshaccel.errors import InvalidInput

if TYPE_CHECKING:
    from meshaccel.model import Json


def wish(**raw: Json) -> Desired:
    """Return a wish that follows kube-proxy."""
    return parse({"mode": "bpf", "follow": "kube_proxy", **raw})


def of_kube_proxy(mark: int) -> Selection:
    """Return what is selected on a node whose kube-proxy masquerades by a mark."""
    return select(wish(), (), Decisions({}, {}, (), mark))


@pytest.mark.parametrize(
    ("given", "kube_proxy", "accepted"),
    [(None, 0x4000, 0x4000), (None, 0, 0), (0, 0x4000, 0), ("0x80", 0x4000, 0x80)],
)
def test_what_the_wish_leaves_open_is_as_kube_proxy_has_it(
    given: int | str | None, kube_proxy: int, accepted: int
) -> None:
    desired = wish(mark_accepted=given)
    assert load_document(desired.document(), "wish") == desired
    resolved = resolve(desired, Surroundings(), of_kube_proxy(kube_proxy), None)
    assert resolved.settings.mark_accepted == accepted


def test_a_mark_of_kube_proxy_s_that_is_ours_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0x2000 and 0x3000"):
        resolve(wish(), Surroundings(), of_kube_proxy(0x2000), None)


def test_a_mark_that_is_ours_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0x1000 and 0x3000"):
        wish(mark_accepted=0x1000)
