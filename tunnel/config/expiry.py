"""Peers that stay until a time: the comment `# expires = 2026-12-31T23:59:59Z`."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from tunnel.config.checks import find_peer
from tunnel.config.model import PeerConfig, TunnelConfig
from tunnel.config.problems import Mistake, quote

__all__ = ["expired", "expiry", "expiry_from", "expiry_text", "next_expiry", "without_expired"]

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def expiry(text: str) -> float:
    """The Unix time of `2026-12-31T23:59:59Z`, or with another offset. Raises Mistake."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            # In UTC it has to be a time, too, or `expiry_text` could not write it.
            return time.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Mistake(f"{quote(text)} is not a time", "write it as 2026-12-31T23:59:59Z")


def expiry_from(text: str, now: float) -> float:
    """The Unix time of a duration from `now` (`12h`, `7d`), or of a time. Raises Mistake, also for
    what is in the past.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    try:
        until = now + int(found[1]) * _SECONDS[found[2]] if found else expiry(text)
    except Mistake as mistake:
        raise Mistake(mistake.fault, f"{mistake.remedy}, or 12h, or 7d") from None
    if until > _LAST:
        raise Mistake(f"{text} is after the year 9999", "leave it out for never")
    if until <= now:
        raise Mistake(f"{text} is in the past", "give a time to come")
    return until


def expiry_text(seconds: float) -> str:
    """A Unix time as `expiry` reads it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def expired(peers: Iterable[PeerConfig], now: float) -> list[PeerConfig]:
    """The peers whose time is over at the Unix time `now`."""
    return [peer for peer in peers if peer.expires is not None and peer.expires <= now]


def next_expiry(config: TunnelConfig) -> float | None:
    """The Unix time at which the first peer expires; None if none does."""
    return min((peer.expires for peer in config.peers if peer.expires is not None), default=None)


def without_expired(config: TunnelConfig, now: float) -> TunnelConfig:
    """The same conf without the peers whose time is over, and what Allow lets them reach."""
    gone = {peer.public_key for peer in expired(config.peers, now)}
    if not gone:
        return config
    options = config.interface.options
    # Of all peers: an address in Allow must not come to mean another one.
    meant = ((each, find_peer(config.peers, each.peer)) for each in options.allow)
    allow = tuple(each for each, peer in meant if peer is None or peer.public_key not in gone)
    interface = replace(config.interface, options=replace(options, allow=allow))
    left = tuple(peer for peer in config.peers if peer.public_key not in gone)
    return replace(config, interface=interface, peers=left)
