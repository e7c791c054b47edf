"""What is ours and a peer's together: keys, cookie, timestamps. Makes the messages from them."""

from typing import Any

from crypto.cookies import MacGenerator
from crypto.errors import LowOrderPoint
from crypto.handshake import Initiator
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation
from tunnel.protocol.context import Context


class Credentials:
    """One peer's keys, and what is worth keeping from one handshake to the next."""

    __slots__ = (
        "_context",
        "_is_low_order",
        "_last_stamp_ns",
        "_macs",
        "_static_static",
        "_static_static_of",
        "preshared_key",
        "public_key",
    )

    def __init__(self, context: Context[Any, Any], public_key: PublicKey) -> None:
        self._context = context
        self.public_key = public_key
        self.preshared_key = PresharedKey.ZERO
        self._static_static: bytes | None = None
        # A key of ours that is no longer the one gives nothing, even before the peer is told.
        self._static_static_of: PrivateKey | None = None
        self._is_low_order: bool | None = None  # None until it matters: finding out is slow
        self._macs: MacGenerator | None = None
        # A peer that was removed and comes back has not forgotten our last timestamp.
        self._last_stamp_ns = context.stamps.pop(public_key, 0)

    def is_low_order(self) -> bool:
        """Whether the public key is a low-order point: then there is nothing to agree on."""
        if self._is_low_order is None:
            self.static_static()  # will be needed anyway, and tells
        if self._is_low_order is None:
            self._is_low_order = self.public_key.is_low_order
        return self._is_low_order

    def static_static(self) -> bytes | None:
        """Our static key with the peer's, computed once for each key of ours; None if it cannot be.

        It cannot without a key of ours, or if the peer's key is a low-order point.
        """
        key = self._context.private_key
        if key is not self._static_static_of:
            self._static_static, self._static_static_of = None, key
        if self._static_static is None and key is not None:
            try:
                self._static_static = key.exchange(self.public_key)
            except LowOrderPoint:
                self._is_low_order = True
            else:
                self._is_low_order = False
        return self._static_static

    def macs(self) -> MacGenerator:
        """The maker of mac1 and mac2 for messages to this peer, with the cookie it holds."""
        if self._macs is None:
            self._macs = MacGenerator(self.public_key)
        return self._macs

    def draw_ephemeral(self) -> PrivateKey:
        """A new key for one handshake with the peer."""
        ephemeral = PrivateKey.from_random(self._context.random(32))
        if self._context.on_ephemeral is not None:
            self._context.on_ephemeral(self.public_key, ephemeral, self.preshared_key)
        return ephemeral

    def create_initiation(
        self, local_index: int, now: float
    ) -> tuple[Initiator, HandshakeInitiation] | None:
        """A new initiation, without its MACs; None while the clock is implausible.

        The peer's key must not be of low order, and we must have a key.
        """
        key = self._context.private_key
        stamp = self._context.timestamp(self._last_stamp_ns, now)
        if key is None or stamp is None:
            return None
        self._last_stamp_ns, timestamp = stamp
        initiator = Initiator(
            static=key,
            remote_static=self.public_key,
            preshared_key=self.preshared_key,
            static_static=self.static_static(),
        )
        message = initiator.create_initiation(
            ephemeral=self.draw_ephemeral(),
            sender=local_index,
            timestamp=timestamp,
        )
        return initiator, message

    def handle_key_change(self) -> None:
        """Our private key is another one."""
        self._static_static = self._static_static_of = None

    def erase(self) -> None:
        """Forget the cookie."""
        self._macs = None

    def handle_removal(self) -> None:
        """The peer goes; it may come back."""
        self._static_static = self._static_static_of = None
        self._macs = None
        self._context.remember_stamp(self.public_key, self._last_stamp_ns)
