"""What is counted over the daemon's life and not by the engine."""

from __future__ import annotations

from typing import Any

import trio

from tunnel.daemon import prometheus
from tunnel.engine.histograms import LAG_BOUNDS, Histogram

LAG_PERIOD = 1.0
"""Seconds between two looks at how late the event loop is."""


class Meter:
    """What is counted over the daemon's life and not by the engine."""

    def __init__(self) -> None:
        self.handshakes = prometheus.Handshakes()
        self.lag = Histogram(LAG_BOUNDS)

    def handle_event(self, kind: str, details: dict[str, Any]) -> None:
        """Count an event, in the form subscribers get."""
        if kind == "handshake":
            self.handshakes.count(details["outcome"], details.get("round_trip"))

    async def watch_loop(self) -> None:
        """Look every second how late the event loop comes to a task that is due."""
        while True:
            due = trio.current_time() + LAG_PERIOD
            await trio.sleep_until(due)
            self.lag.add(max(0.0, trio.current_time() - due))
