"""The keys we share with one peer, its cookie and our timestamps; makes the messages from them."""

from crypto import tai64n
from crypto.cookies import MacGenerator
from crypto.errors import LowOrderPoint
from crypto.handshake import Initiator, Responder, TransportKeys
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse

from .context import InterfaceState


class PeerKeys:
    """One peer's keys, and what is worth keeping from one handshake to the next.

    `last_stamp_ns` is the timestamp of our last initiation.
    """

    __slots__ = (
        "_is_low_order",
        "_macs",
        "_shared",
        "_static_static",
        "_static_static_of",
        "last_stamp_ns",
        "preshared_key",
        "public_key",
    )

    def __init__(self, shared: InterfaceState, public_key: PublicKey) -> None:
        self._shared = shared
        self.public_key = public_key
        self.preshared_key = PresharedKey.ZERO
        self._static_static: bytes | None = None
        # The key of ours it was computed with: another one makes it void at once.
        self._static_static_of: PrivateKey | None = None
        self._is_low_order: bool | None = None  # None until it matters: finding out is slow
        self._macs: MacGenerator | None = None
        # A peer that was removed and comes back has not forgotten our last timestamp.
        self.last_stamp_ns = shared.stamps.pop(public_key, 0)

    def is_low_order(self) -> bool:
        """Whether the public key is a low-order point: then no shared secret can be secret."""
        if self._is_low_order is None:
            self.static_static()  # finds out on the way, and will be needed anyway
        if self._is_low_order is None:
            self._is_low_order = self.public_key.is_low_order
        return self._is_low_order

    def static_static(self) -> bytes | None:
        """DH(our static key, the peer's), computed once for each key of ours; None if it cannot be.

        It cannot without a key of ours, or if the peer's key is a low-order point.
        """
        key = self._shared.private_key
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

    def create_initiation(
        self, key: PrivateKey, local_index: int, stamp_ns: int
    ) -> tuple[Initiator, HandshakeInitiation]:
        """A new initiation with our static `key`, without its MACs.

        The peer's key must not be of low order. `stamp_ns` is later than `last_stamp_ns`.
        """
        self.last_stamp_ns = stamp_ns
        initiator = Initiator(
            static=key,
            remote_static=self.public_key,
            preshared_key=self.preshared_key,
            static_static=self.static_static(),
        )
        message = initiator.create_initiation(
            ephemeral=self._draw_ephemeral(),
            sender=local_index,
            timestamp=tai64n.encode(stamp_ns),
        )
        return initiator, message

    def create_response(
        self, responder: Responder, local_index: int
    ) -> tuple[HandshakeResponse, TransportKeys]:
        """The answer to an initiation, without its MACs, and the keys that it offers."""
        return responder.create_response(
            ephemeral=self._draw_ephemeral(),
            sender=local_index,
            preshared_key=self.preshared_key,
        )

    def handle_key_change(self) -> None:
        """Our private key is another one."""
        self._static_static = self._static_static_of = None

    def erase(self) -> None:
        """Forget the cookie."""
        self._macs = None

    def handle_removal(self) -> None:
        """The peer is removed; it may be added again."""
        self._static_static = self._static_static_of = None
        self._macs = None
        self._shared.remember_stamp(self.public_key, self.last_stamp_ns)

    def _draw_ephemeral(self) -> PrivateKey:
        ephemeral = PrivateKey.from_random(self._shared.random(32))
        if self._shared.on_ephemeral is not None:
            self._shared.on_ephemeral(self.public_key, ephemeral, self.preshared_key)
        return ephemeral
