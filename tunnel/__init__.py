"""A userspace VPN on TUN that speaks the WireGuard protocol.

async with tunnel.open("peer.conf") as t:
    print((await t.status()).public_key)
"""

from __future__ import annotations

TYPE_CHECKING = False
"""As in `typing`, which takes a part of the time of a command to load."""

if TYPE_CHECKING:
    from typing import Any

    from tunnel.api import Tunnel
    from tunnel.api import open_tunnel as open  # noqa: A004 - meant to be read as tunnel.open

__all__ = ["Tunnel", "open"]


def __getattr__(name: str) -> Any:
    """Load the interface for programs when it is asked for: no part of `tunnel` needs all of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tunnel import api

    return api.open_tunnel if name == "open" else api.Tunnel
