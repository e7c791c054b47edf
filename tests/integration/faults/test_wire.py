"""A wire that is slow, changes the order, doubles and damages, in user space."""

from __future__ import annotations

import pytest

from tests.support.fault_figures import Figures
from tests.support.pairs import OUTER, drops
from tests.support.streams import Stream
from tunnel.lab import Lab, wait_for
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.lab.weather import Faults
from tunnel.lab.wire import UserWire

pytestmark = pytest.mark.root

RECOVERED = 20.0


def test_delay_reordering_duplication_corruption_and_rebinding(lab: Lab, figures: Figures) -> None:
    a, b = lab.host("a"), lab.host("b")
    with UserWire([a, b], Faults(), seed=1) as wire:
        nodes = []
        for number, (host, interface) in enumerate(zip((a, b), wire.interfaces, strict=True)):
            host.add_addresses(interface, [f"{OUTER[4][number]}/24"])
            nodes.append(Node(host, (f"10.77.0.{number + 1}/24",), OUTER[4][number]))
        here, there = mesh(nodes).values()
        assert isinstance(here, OurEnd)
        assert isinstance(there, OurEnd)
        here.up()
        there.up()
        carrier = wire.carrier
        with Stream(a, b, nodes[1].address()) as stream:
            stream.flow()

            begun = stream.mark()
            carrier.faults = Faults(delay=0.04, jitter=0.005)
            since = stream.flow(10)
            stream.flow(10)
            seconds = stream.round_trip(since)
            carrier.faults = Faults()
            found = stream.recovery(begun, stream.flow(20), RECOVERED)
            figures.note("40 to 45 ms of delay: a round trip", seconds, f"{found.lost}")
            assert seconds >= 0.08
            assert found.lost == 0

            begun = stream.mark()
            carrier.faults = Faults(reorder=0.2, reorder_delay=0.05, duplicate=0.2)
            stream.flow(50)
            carrier.faults = Faults()
            # The last one may still be on its way.
            wait_for(lambda: carrier.waiting == 0, RECOVERED, "the wire to be empty")
            found = stream.recovery(begun, stream.flow(), RECOVERED)
            figures.recovery("20 % come out of order, 20 % twice", found)
            assert found.lost == 0
            assert stream.doubled == 0
            assert carrier.counts["reordered"] > 0
            # Each copy was dropped with its reason, at one end or the other.
            replays = sum(drops(end).get("replay", 0) for end in (here, there))
            assert replays == carrier.counts["duplicated"] > 0

            begun = stream.mark()
            damaged = carrier.counts["corrupted"]
            carrier.faults = Faults(corrupt=0.2)
            stream.flow(50)
            carrier.faults = Faults()
            found = stream.recovery(begun, stream.mark(), RECOVERED)
            damaged = carrier.counts["corrupted"] - damaged
            figures.recovery("one bit is flipped in 20 %", found)
            assert 0 < found.lost <= damaged

            begun = stream.mark()
            carrier.faults = Faults(rebind=0.5)
            # A packet each 10 ms: two mappings at least.
            stream.wait_sent(110)
            found = stream.recovery(begun, stream.mark(), RECOVERED)
            figures.recovery("a NAT changes our port each 0.5 s", found)
        reasons = {"authentication", "malformed", "unknown_session", "unknown_handshake", "replay"}
        assert set(drops(here)) | set(drops(there)) <= {*reasons, "link_multicast"}
