"""Peers that stay until a time: the comment `# expires = 2026-12-31T23:59:59Z`."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from tunnel.config.checks import find_peer
from tunnel.config.model import PeerConfig, TunnelConfig
from tunnel.config.problems import Mistake, quote

__all__ = ["expired", "expiry", "expiry_text", "next_expiry", "without_expired"]


def expiry(text: str) -> float:
    """The Unix time of `2026-12-31T23:59:59Z`, or with another offset. Raises Mistake."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Mistake(f"{quote(text)} is not a time", "write it as 2026-12-31T23:59:59Z")


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
