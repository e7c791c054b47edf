"""What a daemon counts over its life, and all that one scrape of its metrics needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from tunnel.control.messages.status import TunnelStatus
from tunnel.engine.histograms import LAG_BOUNDS, ROUND_TRIP_BOUNDS, Histogram, Load

OUTCOMES = ("completed", "unanswered", "failed")


LAG_PERIOD = 1.0
"""Seconds between two measurements of how late the event loop is."""


class Meter:
    """What is counted over the daemon's life and not by the engine.

    `outcomes` are handshakes by outcome: an unanswered initiation is one, and so is giving up.
    `restarts` counts the daemons before this one.
    `round_trips` of handshakes and `lag` of the event loop are in seconds.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.round_trips = Histogram(ROUND_TRIP_BOUNDS)
        self.lag = Histogram(LAG_BOUNDS)

    def handle_event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Count an event, in the form subscribers get."""
        if kind == "handshake":
            self.outcomes[details["outcome"]] += 1
            if "round_trip" in details:
                self.round_trips.add(details["round_trip"])

    async def watch_loop(self) -> None:
        """Measure how late the event loop runs a task that is due, until cancelled."""
        while True:
            due = trio.current_time() + LAG_PERIOD
            await trio.sleep_until(due)
            self.lag.add(max(0.0, trio.current_time() - due))


@dataclass(slots=True)
class Metrics:
    """What one scrape shows of a tunnel.

    `reasons` are all that packets can be dropped for, so that those that never happened are zeros
    and not gaps. `queues` are lengths in packets, by name;
    `socket_bytes` what waits in the UDP sockets, by direction. `tasks` are those of the event loop.
    """

    status: TunnelStatus
    load: Load = field(default_factory=Load)
    meter: Meter = field(default_factory=Meter)
    queues: Mapping[str, int] = field(default_factory=dict)
    socket_bytes: Mapping[str, int] = field(default_factory=dict)
    reasons: Iterable[str] = ()
    tasks: int = 0
