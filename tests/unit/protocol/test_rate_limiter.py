"""Handshake messages of one address under load: the rate, the bound of the memory, its turns."""

from __future__ import annotations

import pytest

from tunnel.protocol import rate_limiter
from tunnel.protocol.constants import INITIATIONS_BURST, INITIATIONS_PER_SECOND
from tunnel.protocol.rate_limiter import RateLimiter

ADDRESS = bytes([192, 0, 2, 1])


def test_a_burst_and_then_the_rate() -> None:
    limiter = RateLimiter()
    at_once = [limiter.allow(ADDRESS, 100.0) for _ in range(2 * INITIATIONS_BURST)]
    assert at_once == [True] * INITIATIONS_BURST + [False] * INITIATIONS_BURST
    ticks = range(1, 10 * INITIATIONS_PER_SECOND + 1)
    allowed = sum(limiter.allow(ADDRESS, 100.0 + n / (2 * INITIATIONS_PER_SECOND)) for n in ticks)
    assert allowed == 5 * INITIATIONS_PER_SECOND


def test_an_ipv6_network_shares_its_messages() -> None:
    limiter = RateLimiter()
    network = bytes.fromhex("20010db800000001")
    hosts = [network + n.to_bytes(8, "big") for n in range(INITIATIONS_BURST + 1)]
    assert [limiter.allow(host, 1.0) for host in hosts] == [True] * INITIATIONS_BURST + [False]
    assert limiter.allow(bytes.fromhex("20010db800000002") + bytes(8), 1.0)


def test_full_memory_lets_known_sources_go_on_at_their_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limiter, "MAX_RATE_LIMITED_SOURCES", 8)
    limiter = RateLimiter()
    assert limiter.allow(ADDRESS, 10.0)
    strangers = [bytes([203, 0, 113, n]) for n in range(8)]
    # The next generation is full of others before the known source comes again.
    allowed = [limiter.allow(stranger, 11.0) for stranger in strangers]
    assert allowed == [True] * 4 + [False] * 4
    again = [limiter.allow(ADDRESS, 11.0) for _ in range(INITIATIONS_BURST + 1)]
    assert again == [True] * INITIATIONS_BURST + [False]
    assert len(limiter) == 5
    # Sources that were not heard for two generations are forgotten.
    assert limiter.allow(strangers[7], 13.5)
    assert len(limiter) == 1
