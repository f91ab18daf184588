"""Generic netlink against the one family that every kernel has: the one that tells the others' numbers."""

from __future__ import annotations

import pytest

from meshaccel.system.generic_netlink import FAMILY_ID, FAMILY_NAME, GET_FAMILY, GenericNetlink
from meshaccel.system.netlink import attribute, attributes, number, text

CONTROLLER = "nlctrl"


def test_a_dump_has_every_family_and_a_request_one_of_them() -> None:
    with GenericNetlink(CONTROLLER) as netlink:
        families = {
            text(found[FAMILY_NAME]): number(found[FAMILY_ID])
            for found in map(attributes, netlink.dump(GET_FAMILY))
        }
        name = attribute(FAMILY_NAME, CONTROLLER.encode() + b"\0")
        asked = attributes(netlink.request(GET_FAMILY, name))
    assert families[CONTROLLER] == number(asked[FAMILY_ID]) == 16
    assert len(families) > 1


def test_a_family_that_is_not_there_is_told() -> None:
    with pytest.raises(FileNotFoundError):
        GenericNetlink("NO_SUCH_FAMILY")
