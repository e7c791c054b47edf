"""Lines of the log that a thousand peers would have at once: some of them, and one on the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from tunnel.protocol import Event, HandshakeFailed, HandshakeUnanswered

log = logging.getLogger("tunnel")

PERIOD = 60.0
"""Seconds of which the lines are counted, from the first on."""

MAX_LINES = 60
"""Lines of one kind in a period: more than a handful of peers ever have."""


@dataclass(slots=True)
class _Period:
    """One kind of line: how many there were since `began`, and whom those left out were about."""

    began: float
    lines: int = 0
    left_out: int = 0
    peers: set[bytes] = field(default_factory=set)


class Summaries:
    """Says which lines are left out, and what there was in their place when a period is over.

    Handshakes that are not answered or fail are summarised; nothing is while the log is for
    debugging. `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._periods: dict[type[Event], _Period] = {}
        self._begun = trio.Event()

    def leaves_out(self, event: Event) -> bool:
        """Whether `event` gets no line of its own, which counts it for the summary."""
        if not isinstance(event, HandshakeUnanswered | HandshakeFailed):
            return False
        if log.isEnabledFor(logging.DEBUG):
            return False
        self.log_due()
        period = self._periods.get(type(event))
        if period is None:
            period = self._periods[type(event)] = _Period(self._clock())
            self._begun.set()
        if period.lines < MAX_LINES:
            period.lines += 1
            return False
        period.left_out += 1
        period.peers.add(bytes(event.public_key))
        return True

    def log_due(self) -> None:
        """Log the summaries of the periods that are over."""
        now = self._clock()
        for kind, period in list(self._periods.items()):
            if now >= period.began + PERIOD:
                del self._periods[kind]
                if period.left_out:
                    _log_summary(kind, period)

    async def run(self) -> None:
        """Log each summary when its period is over, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun = trio.Event()
            while self._periods:
                ends = min(period.began for period in self._periods.values()) + PERIOD
                await trio.sleep(max(0.0, ends - self._clock()))
                self.log_due()


def _log_summary(kind: type[Event], period: _Period) -> None:
    peers = "1 peer" if len(period.peers) == 1 else f"{len(period.peers):,} peers"
    more = f"{period.left_out:,} more of these lines in {PERIOD:.0f} s, about {peers}, not shown"
    if kind is HandshakeFailed:
        log.warning("handshakes that failed: %s; tunnel show lists them", more)
    else:
        log.info("handshakes that were not answered: %s; tunnel show lists them", more)
