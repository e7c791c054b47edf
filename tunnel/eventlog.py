"""The protocol's events in words: a line in the log, and a record for subscribers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from tunnel.config import PublicKey
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
"""Seconds between two lines about one peer that moves: one with two ways moves with each packet."""


class EventLog:
    """One line per event of the protocol, at the level an admin would give it.

    `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When a peer's last line was, and how many moves went without one since.
        self._moves: dict[PublicKey, tuple[float, int]] = {}

    def log(self, event: Event) -> None:
        """Log `event`."""
        if isinstance(event, PeerRoamed):
            self._log_move(event)
            return
        if isinstance(event, PeerRemoved):
            self._moves.pop(event.peer.public_key, None)
        _log(event)

    def _log_move(self, event: PeerRoamed) -> None:
        old, new = event.old, event.new
        if old is not None and str(old) == str(new):
            return
        key = event.peer.public_key
        now = self._clock()
        last, untold = self._moves.get(key, (float("-inf"), 0))
        if now < last + ROAMED_PERIOD:
            self._moves[key] = last, untold + 1
            return
        if len(self._moves) >= _MAX_MOVES:
            self._moves.clear()
        self._moves[key] = now, 0
        before = f" ({untold} moves more since the last line)" if untold else ""
        if old is None:
            log.info("%s is at %s%s", key.to_base64(), new, before)
        else:
            log.info("%s moved from %s to %s%s", key.to_base64(), old, new, before)


_MAX_MOVES = 4096
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


def record(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Type and details of the event as docs/control.md lists them; None for one not told."""
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
        case PeerRoamed(peer=peer, old=old, new=new):
            if str(old) == str(new):
                return None
            was = None if old is None else str(old)
            return "roamed", {"peer": peer.public_key.to_base64(), "old": was, "new": str(new)}
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
