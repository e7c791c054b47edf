"""A userspace VPN on TUN that speaks the WireGuard protocol.

    async with tunnel.open("peer.conf") as t:
        print((await t.status()).public_key)

`open` is for trio programs, `open_asyncio` for asyncio, `open_sync` for all others. Every error is
a `TunnelError`. `events` has the classes of what happens to a tunnel, `tunnel.testing` hosts and
bad wires for tests, with fixtures for pytest. docs/python.md describes all of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""As in `typing`, which takes a part of the time of a command to load."""

if TYPE_CHECKING:
    from typing import Any

    from tunnel.api import events
    from tunnel.api.aio import AsyncioTunnel, open_asyncio
    from tunnel.api.blocking import SyncTunnel, open_sync
    from tunnel.api.running import Tunnel
    from tunnel.api.running import open_tunnel as open  # noqa: A004 - to be read as tunnel.open
    from tunnel.config import TunnelConfig
    from tunnel.control.messages.changes import Change
    from tunnel.control.messages.status import PeerStatus, TunnelStatus
    from tunnel.errors import TunnelError

__all__ = [
    "AsyncioTunnel",
    "Change",
    "PeerStatus",
    "SyncTunnel",
    "Tunnel",
    "TunnelConfig",
    "TunnelError",
    "TunnelStatus",
    "events",
    "open",
    "open_asyncio",
    "open_sync",
]

_PLACES = {
    "AsyncioTunnel": "tunnel.api.aio:AsyncioTunnel",
    "Change": "tunnel.control.messages.changes:Change",
    "PeerStatus": "tunnel.control.messages.status:PeerStatus",
    "SyncTunnel": "tunnel.api.blocking:SyncTunnel",
    "Tunnel": "tunnel.api.running:Tunnel",
    "TunnelConfig": "tunnel.config:TunnelConfig",
    "TunnelError": "tunnel.errors:TunnelError",
    "TunnelStatus": "tunnel.control.messages.status:TunnelStatus",
    "events": "tunnel.api.events:",
    "open": "tunnel.api.running:open_tunnel",
    "open_asyncio": "tunnel.api.aio:open_asyncio",
    "open_sync": "tunnel.api.blocking:open_sync",
}


def __getattr__(name: str) -> Any:
    """Load the interface for programs when it is asked for: no part of `tunnel` needs all of it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, inside = _PLACES[name].partition(":")
    found = import_module(module)
    return getattr(found, inside) if inside else found


def __dir__() -> list[str]:
    return __all__
