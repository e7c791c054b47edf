"""A WireGuard device at one moment, as values that no later change of it touches.

It is taken of a device of ours, or read from the answer to a `get` of another program's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.messages.status import NO_LIMITS, PeerLimits
from tunnel.io.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """One peer.

    `networks` are its allowed IPs, each as `tunnel.protocol.pack` makes it, or as many of them as
    were asked for; `network_count` is the number there are. `last_handshake_unix_ns` is 0 before
    the first handshake; `rx_bytes` and `tx_bytes` count UDP payload; `persistent_keepalive` is in
    seconds, 0 for off; `staged_frames` wait for a session.
    """

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    networks: list[int] = field(default_factory=list)
    network_count: int = 0
    last_handshake_unix_ns: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    persistent_keepalive: int = 0
    staged_frames: int = 0
    is_connected: bool = False
    limits: PeerLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """Keys, sockets and peers of an interface. `private_key` is None if none is set."""

    private_key: PrivateKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerSnapshot, ...]
