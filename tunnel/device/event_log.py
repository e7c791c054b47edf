"""The protocol's events in words: a line in the log, and a record for subscribers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from tunnel.config import PublicKey
from tunnel.control.timeslice import Pace
from tunnel.protocol import (
    ClockImplausible,
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    KeysErased,
    Peer,
    PeerRemoved,
    PeerRoamed,
    SessionExpired,
)

log = logging.getLogger("tunnel")

ROAMED_PERIOD = 1.0
"""Seconds between two moves of one peer that are told: one with two ways moves with each packet."""


Publish = Callable[[str, dict[str, Any]], None]
"""Takes the type and the details of an event, as docs/control.md lists them."""


def _publish_nothing(kind: str, details: dict[str, Any]) -> None:
    """There are no subscribers."""


@dataclass(slots=True)
class _Moves:
    """When a peer's move was last told, and what has not been told since."""

    told_at: float
    left_out: int = 0
    latest: PeerRoamed | None = None


class EventLog:
    """Each event of the protocol as a line at the level an admin would give it, and as a record.

    `publish` gets the records. Of one peer's moves one is told in `ROAMED_PERIOD`, with the number
    of those left out before it. `clock` gives seconds that never go back.
    """

    def __init__(
        self, publish: Publish = _publish_nothing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._moves: dict[PublicKey, _Moves] = {}
        self._late = trio.Event()

    def log(self, event: Event) -> None:
        """Tell of `event`."""
        if isinstance(event, PeerRoamed):
            self._take_move(event)
            return
        if isinstance(event, PeerRemoved):
            self._moves.pop(event.peer.public_key, None)
        _log(event)
        record = _record(event)
        if record is not None:
            self._publish(*record)

    async def run(self) -> None:
        """Tell where each peer was last when no move has come for a while, until cancelled."""
        pace = Pace()
        while True:
            await self._late.wait()
            await trio.sleep(ROAMED_PERIOD)
            self._late = trio.Event()
            for moves in list(self._moves.values()):
                if moves.latest is None:
                    continue
                if self._clock() < moves.told_at + ROAMED_PERIOD:
                    self._late.set()
                elif moves.latest.peer.removed:
                    moves.latest = None
                else:
                    moves.left_out -= 1
                    self._tell_move(moves.latest, moves)
                await pace.step()

    def _take_move(self, event: PeerRoamed) -> None:
        if event.old is not None and str(event.old) == str(event.new):
            return
        key = event.peer.public_key
        moves = self._moves.get(key)
        if moves is None:
            if len(self._moves) >= _MAX_MOVES:
                self._moves.clear()
            moves = self._moves[key] = _Moves(float("-inf"))
        if self._clock() < moves.told_at + ROAMED_PERIOD:
            moves.left_out += 1
            moves.latest = event
            self._late.set()
        else:
            self._tell_move(event, moves)

    def _tell_move(self, event: PeerRoamed, moves: _Moves) -> None:
        left_out = moves.left_out
        moves.told_at, moves.left_out, moves.latest = self._clock(), 0, None
        key = event.peer.public_key.to_base64()
        old = None if event.old is None else str(event.old)
        new = str(event.new)
        before = f" ({left_out} moves more since the last line)" if left_out else ""
        if old is None:
            log.info("%s is at %s%s", key, new, before)
        else:
            log.info("%s moved from %s to %s%s", key, old, new, before)
        self._publish("roamed", {"peer": key, "old": old, "new": new, "left_out": left_out})


_MAX_MOVES = 16_384
"""Peers whose last move is remembered; those that `wg` removes do not tell us."""


def _log(event: Event) -> None:
    match event:
        case HandshakeCompleted(peer=peer, is_initiator=initiator, round_trip=round_trip):
            side = "our" if initiator else "its"
            log.info(
                "handshake with %s completed on %s initiative, round trip %.1f ms",
                peer.public_key.to_base64(),
                side,
                round_trip * 1000,
            )
        case HandshakeUnanswered(peer=peer, attempt=attempt):
            log.info("no answer from %s (attempt %d)", _whereabouts(peer), attempt)
        case HandshakeFailed(peer=peer, attempts=attempts, dropped=dropped, reason=reason):
            log.warning(
                "no session with %s after %d attempts: %s; %d waiting packets dropped",
                _whereabouts(peer),
                attempts,
                reason,
                dropped,
            )
        case PeerRemoved(peer=peer):
            log.warning("%s removed: its key is now our own", peer.public_key.to_base64())
        case ClockImplausible(problem=problem):
            log.error("the clock cannot be right: %s", problem)
        case _:
            log.debug("%s", event)


def _record(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Type and details of the event; None for one that subscribers are not told."""
    match event:
        case HandshakeCompleted(peer=peer, is_initiator=initiator, round_trip=round_trip):
            return "handshake", {
                **_peer(peer),
                "outcome": "completed",
                "is_initiator": initiator,
                "round_trip": round_trip,
            }
        case HandshakeUnanswered(peer=peer, attempt=attempt):
            return "handshake", {**_peer(peer), "outcome": "unanswered", "attempt": attempt}
        case HandshakeFailed(peer=peer, attempts=attempts, dropped=dropped, reason=reason):
            return "handshake", {
                **_peer(peer),
                "outcome": "failed",
                "attempts": attempts,
                "dropped": dropped,
                "reason": reason,
            }
        case PeerRemoved(peer=peer):
            return "peer_removed", {"peer": peer.public_key.to_base64()}
        case SessionExpired(peer=peer):
            return "session_expired", {"peer": peer.public_key.to_base64()}
        case KeysErased(peer=peer):
            return "keys_erased", {"peer": peer.public_key.to_base64()}
        case ClockImplausible(refused=refused, problem=problem):
            return "clock", {"refused": refused, "problem": problem}
        case _:
            return None


def _peer(peer: Peer[Any, Any]) -> dict[str, Any]:
    endpoint = None if peer.endpoint is None else str(peer.endpoint)
    return {"peer": peer.public_key.to_base64(), "endpoint": endpoint}


def _whereabouts(peer: Peer[Any, Any]) -> str:
    return f"{peer.public_key.to_base64()} at {peer.endpoint or 'no known address'}"
