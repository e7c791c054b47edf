"""The protocol's events in words: a line in the log, and a record for subscribers."""

from __future__ import annotations

import logging
from typing import Any

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


def log_event(event: Event) -> None:
    """One line per event of the protocol, at the level an admin would give it."""
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
        case PeerRoamed(peer=peer, old=old, new=new):
            if old is None:
                log.info("%s is at %s", peer.public_key.to_base64(), new)
            elif str(old) != str(new):
                log.info("%s moved from %s to %s", peer.public_key.to_base64(), old, new)
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
