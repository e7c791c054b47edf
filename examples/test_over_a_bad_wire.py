"""Tests of a program over a network of one's own, with the fixtures of tunnel.testing.

sudo pytest examples/test_over_a_bad_wire.py
"""

from __future__ import annotations

from tunnel.testing import Faults, TunnelPair, TwoHosts, tunnel_pair
from tunnel.testing.plugin import MakeWire


def test_two_hosts_reach_each_other(tunnel_hosts: TwoHosts) -> None:
    """Programs run in a host by `run` and `popen`, with its interfaces, its /run, its names."""
    found = tunnel_hosts.a.run(["ping", "-c", "1", "192.0.2.2"]).stdout
    assert "1 received" in found


def test_the_tunnel_carries_ipv6(tunnel_pair: TunnelPair) -> None:
    """A tunnel between two hosts is one fixture."""
    tunnel_pair.a.node.host.ping("fd77::2")


def test_a_tunnel_over_a_wire_that_loses_packets(tunnel_wire: MakeWire) -> None:
    """The wire may change while it carries; the same seed means the same faults."""
    wire = tunnel_wire(loss=0.1, delay=0.005, seed=26)
    pair = tunnel_pair(wire.a, wire.b)
    pair.a.node.host.ping("10.77.0.2", count=10, timeout=20)
    assert wire.counts["lost"] > 0
    wire.faults = Faults()
    pair.a.node.host.ping("10.77.0.2")
