"""Settings of a real kernel, of the network namespace that the calling thread is in."""

from __future__ import annotations

import pytest

from meshaccel.errors import Unsupported
from meshaccel.system import network_namespaces, sysctl
from tests.support.namespaces import NetworkNamespace

NAME = "net.ipv4.ip_local_port_range"


def test_a_value_is_of_the_namespace_it_is_read_and_written_in() -> None:
    outside = sysctl.read(NAME)
    with NetworkNamespace("node") as node:
        with network_namespaces.entered(str(node.path)):
            sysctl.write(NAME, "20000 30000")
            assert sysctl.read(NAME) == "20000 30000"
            with pytest.raises(Unsupported, match=f"{NAME} = none"):
                sysctl.write(NAME, "none")
        assert node.run(["sysctl", "-n", NAME]).split() == ["20000", "30000"]
    assert sysctl.read(NAME) == outside


def test_a_setting_that_is_not_there() -> None:
    assert sysctl.read("net.ipv4.none") is None
    assert sysctl.names_below("net.ipv4.none") == ()
    assert "net.ipv4.conf.lo.rp_filter" in sysctl.names_below("net.ipv4.conf.lo")
    with pytest.raises(Unsupported):
        sysctl.write("net.ipv4.none", "1")
