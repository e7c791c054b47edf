"""The protocol's events in words: a line in the log, and a record for subscribers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from tunnel.config import PublicKey
from tunnel.control.messages.sentences import sentence
from tunnel.control.messages.status import RefusedHandshake
from tunnel.control.timeslice import Pace
from tunnel.device.summaries import Summaries
from tunnel.protocol import (
    ClockImplausible,
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeRefused,
    HandshakeUnanswered,
    KeypairExpired,
    KeysErased,
    PeerConnected,
    PeerDisconnected,
    PeerRemoved,
    PeerRoamed,
    QuotaReached,
    RoutingLoop,
    UdpAddress,
)

log = logging.getLogger("tunnel")

ROAMED_PERIOD = 1.0
"""Seconds between two reported moves of one peer: one that has two ways moves with each packet."""

_MAX_MOVES = 16_384
"""Peers whose last move is remembered."""

_LEVELS: Mapping[type[Event], int] = {
    HandshakeCompleted: logging.INFO,
    PeerConnected: logging.INFO,
    PeerDisconnected: logging.INFO,
    QuotaReached: logging.WARNING,
    HandshakeUnanswered: logging.INFO,
    HandshakeFailed: logging.WARNING,
    HandshakeRefused: logging.WARNING,
    RoutingLoop: logging.ERROR,
    ClockImplausible: logging.ERROR,
}
"""How events are logged; all others are for debugging."""

NameOf = Callable[[str], str]
"""The friendly name of a peer by its key in base64, empty if it has none."""

Publish = Callable[[str, dict[str, Any]], None]
"""Takes the type and the details of an event, as docs/control.md lists them."""


def publish_nothing(kind: str, details: dict[str, Any]) -> None:
    """There are no subscribers."""


@dataclass(slots=True)
class _Moves:
    """When a peer's move was last reported, and what has not been since."""

    reported_at: float
    left_out: int = 0
    latest: PeerRoamed | None = None


class EventLog:
    """Each event of the protocol as a line at the level an admin would give it, and as a record.

    `publish` gets the records. Of one peer's moves one is reported in `ROAMED_PERIOD`, with the
    number of those left out before it; of the lines that a thousand peers would have at once, some
    are logged and the rest is summarised. `clock` gives seconds that never go back. What is about a
    peer with a name has that, too.
    """

    def __init__(
        self,
        publish: Publish = publish_nothing,
        clock: Callable[[], float] = time.monotonic,
        name_of: NameOf = lambda key: "",
    ) -> None:
        self._publish = publish
        self._name_of = name_of
        self._clock = clock
        self._moves: dict[PublicKey, _Moves] = {}
        self._late = trio.Event()
        self._summaries = Summaries(clock)
        self.refused: dict[str, RefusedHandshake] = {}
        """The latest one of each reason."""

    def log(self, event: Event) -> None:
        """Log and publish `event`."""
        if isinstance(event, PeerRoamed):
            self._take_move(event)
            return
        if isinstance(event, HandshakeRefused):
            reason, key = str(event.reason), event.public_key
            sender = None if key is None else key.to_base64()
            self.refused[reason] = RefusedHandshake(
                reason, time.time(), str(event.endpoint), sender
            )
        level = _LEVELS.get(type(event), logging.DEBUG)
        if isinstance(event, PeerRemoved):
            level = logging.WARNING if event.own_key else logging.DEBUG
            self._moves.pop(event.public_key, None)
        record = _record(event)
        if record is not None:
            self._report(level, *record, has_line=not self._summaries.leaves_out(event))

    async def run(self) -> None:
        """Report, once it is time, what was not reported when it happened; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._summaries.run)
            nursery.start_soon(self._report_last_moves)

    async def _report_last_moves(self) -> None:
        """Report where each peer was last when no move has come for a while."""
        pace = Pace()
        while True:
            await self._late.wait()
            await trio.sleep(ROAMED_PERIOD)
            self._late = trio.Event()
            for moves in list(self._moves.values()):
                if moves.latest is None:
                    continue
                if self._clock() < moves.reported_at + ROAMED_PERIOD:
                    self._late.set()
                else:
                    moves.left_out -= 1
                    self._report_move(moves.latest, moves)
                await pace.step()

    def _take_move(self, event: PeerRoamed) -> None:
        if event.old is not None and str(event.old) == str(event.new):
            return
        key = event.public_key
        moves = self._moves.get(key)
        if moves is None:
            if len(self._moves) >= _MAX_MOVES:
                self._moves.clear()
            moves = self._moves[key] = _Moves(float("-inf"))
        if self._clock() < moves.reported_at + ROAMED_PERIOD:
            moves.left_out += 1
            moves.latest = event
            self._late.set()
        else:
            self._report_move(event, moves)

    def _report_move(self, event: PeerRoamed, moves: _Moves) -> None:
        left_out = moves.left_out
        moves.reported_at, moves.left_out, moves.latest = self._clock(), 0, None
        details = {
            "peer": event.public_key.to_base64(),
            "old": None if event.old is None else str(event.old),
            "new": str(event.new),
            "left_out": left_out,
        }
        has_line = not self._summaries.leaves_out(event)
        self._report(logging.INFO, "roamed", details, has_line=has_line)

    def _report(
        self, level: int, kind: str, details: dict[str, Any], *, has_line: bool = True
    ) -> None:
        name = self._name_of(details["peer"]) if details.get("peer") else ""
        if name:
            details["name"] = name
        if has_line and log.isEnabledFor(level):
            log.log(level, "%s", sentence(kind, details))
        self._publish(kind, details)


def _record(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Type and details of the event; None for one that is neither logged nor published."""
    match event:
        case HandshakeCompleted(
            public_key=key, endpoint=endpoint, is_initiator=initiator, round_trip=round_trip
        ):
            return "handshake", {
                **_peer(key, endpoint),
                "outcome": "completed",
                "is_initiator": initiator,
                "round_trip": round_trip,
            }
        case HandshakeUnanswered(public_key=key, endpoint=endpoint, attempt=attempt):
            return "handshake", {
                **_peer(key, endpoint),
                "outcome": "unanswered",
                "attempt": attempt,
            }
        case HandshakeFailed(
            public_key=key, endpoint=endpoint, attempts=attempts, dropped=dropped, reason=reason
        ):
            return "handshake", {
                **_peer(key, endpoint),
                "outcome": "failed",
                "attempts": attempts,
                "dropped": dropped,
                "reason": reason,
            }
        case HandshakeRefused(reason=reason, endpoint=endpoint, public_key=sender):
            return "refused", {
                "peer": None if sender is None else sender.to_base64(),
                "endpoint": str(endpoint),
                "reason": str(reason),
            }
        case PeerConnected(public_key=key, endpoint=endpoint, rx_bytes=received, tx_bytes=sent):
            return "connected", {
                **_peer(key, endpoint),
                "rx_bytes": received,
                "tx_bytes": sent,
            }
        case PeerDisconnected(
            public_key=key, endpoint=endpoint, reason=reason, rx_bytes=received, tx_bytes=sent
        ):
            return "disconnected", {
                **_peer(key, endpoint),
                "reason": reason,
                "rx_bytes": received,
                "tx_bytes": sent,
            }
        case QuotaReached(public_key=key, size=size, used=used, period=period):
            return "quota_reached", {
                "peer": key.to_base64(),
                "quota": size,
                "used": used,
                "period": period,
            }
        case PeerRemoved(public_key=key, own_key=own_key):
            return "peer_removed", {"peer": key.to_base64(), "own_key": own_key}
        case KeypairExpired(public_key=key):
            return "session_expired", {"peer": key.to_base64()}
        case KeysErased(public_key=key):
            return "keys_erased", {"peer": key.to_base64()}
        case RoutingLoop(public_key=key, endpoint=endpoint):
            return "routing_loop", _peer(key, endpoint)
        case ClockImplausible(refused=refused, problem=problem):
            return "clock", {"refused": refused, "problem": problem}
        case _:
            return None


def _peer(key: PublicKey, endpoint: UdpAddress | None) -> dict[str, Any]:
    return {"peer": key.to_base64(), "endpoint": None if endpoint is None else str(endpoint)}
