"""How hard a tunnel works: distributions of what happens by the batch, never by the packet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Packets: a 64 KiB frame is about 46 of full size, a whole arena about 190."""

LAG_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Seconds."""

ROUND_TRIP_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; after five an initiation is repeated."""


class Histogram:
    """Counts of values by size, as Prometheus has them.

    `counts[i]` values were at most `bounds[i]` and more than the bound before; the last count is
    of those above all bounds. `total` is the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus writes them: upper bound, and how many values are below."""
        below, buckets = 0, []
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        return buckets


class Load:
    """What the engine counts of itself: packets of each batch `sealed` and each batch `opened`.

    `congested` are the packets received in datagrams that were marked CE on the way (RFC 3168).
    """

    __slots__ = ("congested", "opened", "sealed")

    def __init__(self) -> None:
        self.sealed = Histogram(BATCH_BOUNDS)
        self.opened = Histogram(BATCH_BOUNDS)
        self.congested = 0
