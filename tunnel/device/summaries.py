"""Lines of the log that a thousand peers would have at once: some of them, and one on the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from tunnel.protocol import (
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    PeerConnected,
    PeerDisconnected,
    PeerRoamed,
)

log = logging.getLogger("tunnel")

PERIOD = 60.0
"""Seconds of which the lines are counted, from the first on."""

MAX_LINES = 60
"""Lines of one kind in a period: more than a handful of peers ever have."""

_Summarised: TypeAlias = (
    HandshakeCompleted
    | HandshakeUnanswered
    | HandshakeFailed
    | PeerConnected
    | PeerDisconnected
    | PeerRoamed
)

_SUMMARIES: Mapping[type[Event], tuple[int, str]] = {
    HandshakeCompleted: (logging.INFO, "handshakes that completed"),
    HandshakeUnanswered: (logging.INFO, "handshakes that were not answered"),
    HandshakeFailed: (logging.WARNING, "handshakes that failed"),
    PeerConnected: (logging.INFO, "peers that connected"),
    PeerDisconnected: (logging.INFO, "peers that disconnected"),
    PeerRoamed: (logging.INFO, "peers that moved"),
}
"""At which level each is summed up, and as what."""


@dataclass(slots=True)
class _Period:
    """One kind of line: how many there were since `began`, and whom those left out were about."""

    began: float
    lines: int = 0
    left_out: int = 0
    peers: set[bytes] = field(default_factory=set)


class Summaries:
    """Says which lines are left out, and what there was in their place when a period is over.

    Those of handshakes and of moves are summarised; nothing is while the log is for debugging.
    `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._periods: dict[type[Event], _Period] = {}
        self._begun = trio.Event()

    def leaves_out(self, event: Event) -> bool:
        """Whether `event` gets no line of its own, which counts it for the summary."""
        if not isinstance(event, _Summarised) or log.isEnabledFor(logging.DEBUG):
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
    level, what = _SUMMARIES[kind]
    log.log(
        level,
        "%s: %s more of these lines in %.0f s, about %s, not shown; tunnel show lists them",
        *(what, f"{period.left_out:,}", PERIOD, peers),
    )
