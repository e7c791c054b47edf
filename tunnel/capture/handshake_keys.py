"""Handshakes that were seen on the wire before their keys came.

The daemon publishes the key of a handshake message before it sends the message. The capture reads
keys and packets from two sockets, so on a busy machine it may see the message first. A reader such
as tshark needs the key first: what follows the message has to wait for it.
"""

from __future__ import annotations

from tunnel.config import PrivateKey
from tunnel.packet.headers import UDP_HEADER, Headers

PATIENCE_NS = 2_000_000_000
"""Nanoseconds to wait for the key of a handshake: the daemon may have dropped it."""

MAX_KEYS = 1 << 14
"""Keys that are remembered until their messages are seen."""

_EPHEMERAL_AT = {1: 8, 2: 12}
"""By message type, where the ephemeral public key begins (WireGuard whitepaper, section 5.4)."""


class HandshakeKeys:
    """Our own handshake messages, each known by its ephemeral public key."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}
        self._missing: dict[bytes, int] = {}

    def add_key(self, ephemeral_key: str) -> None:
        """Take note of a private ephemeral key, in base64."""
        public = bytes(PrivateKey.from_base64(ephemeral_key).public_key())
        if self._missing.pop(public, None) is None:
            self._keys[public] = None
            if len(self._keys) > MAX_KEYS:
                del self._keys[next(iter(self._keys))]

    def sent(self, datagram: bytes, time_ns: int) -> None:
        """Take note of a datagram of ours, from its IP header on."""
        headers = Headers.parse(datagram)
        if headers is None or headers.wireguard is None:
            return
        start = _EPHEMERAL_AT.get(headers.wireguard[0])
        if start is None:
            return
        ephemeral = datagram[len(headers.network) + UDP_HEADER + start :][:32]
        if ephemeral not in self._keys:
            self._missing.setdefault(ephemeral, time_ns)

    def complete_until(self, now_ns: int) -> int:
        """The time until which all keys are there, or will not come any more; at most `now_ns`."""
        overdue = now_ns - PATIENCE_NS
        self._missing = {key: seen for key, seen in self._missing.items() if seen > overdue}
        return min(self._missing.values(), default=now_ns)
