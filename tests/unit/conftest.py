"""Fixtures of more than one room's tests."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tests.support.engines import Sides, make_side


@pytest.fixture
def sides() -> Sides:
    """Two engines that know each other; what one sends, the other receives."""
    a, b = make_side(1), make_side(2)
    a.udp.other, b.udp.other = b.udp, a.udp
    for side, other, number in ((a, b, 2), (b, a, 1)):
        public = other.engine.interface.public_key
        assert public is not None
        peer = side.engine.interface.add_peer(public)
        peer.set_endpoint(other.udp.own)
        side.engine.interface.allowed_ips.insert(IPv4Network(f"10.0.0.{number}/32"), peer)
    return a, b
