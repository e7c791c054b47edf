"""`tunnel doctor` of a tunnel of Ethernet frames: no route is missed, and faults are named."""

from __future__ import annotations

import pytest

from tests.support.daemons import rewrite
from tests.support.doctoring import codes, examine
from tests.support.hosts import TwoHosts
from tests.support.taps import make_ends

pytestmark = pytest.mark.root


def test_a_bridge_is_healthy_and_another_mode_is_named(two_hosts: TwoHosts) -> None:
    a, b = make_ends(two_hosts, "Bridge = br0", routes="0.0.0.0/0")
    a.up()
    b.up()
    a.node.host.ping("10.77.0.2")
    report = examine(a)
    assert codes(report) == set()
    assert codes(report, "notes") <= {"dropped_earlier"}  # neighbours that fell silent, at most
    b.down()
    rewrite(b, "Mode = tap\nBridge = br0\n", "")
    b.up()
    b.node.host.run(["ping", "-c", "1", "-W", "1", "10.77.0.1"], check=False)
    for end in (a, b):
        assert codes(examine(end)) == {"mode_differs"}
