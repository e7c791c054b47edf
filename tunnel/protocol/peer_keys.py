"""The keys we share with one peer, its cookie and our timestamps; makes the messages from them."""

from crypto import tai64n
from crypto.cookies import MacGenerator
from crypto.keys import KEY_LENGTH, PresharedKey, PrivateKey, PublicKey

from .context import InterfaceState
from .driver import AwaitedResponse, StaticIdentity


class PeerKeys:
    """One peer's keys, and what is worth keeping from one handshake to the next.

    `last_stamp_ns` is the timestamp of our last initiation.
    """

    __slots__ = (
        "_is_low_order",
        "_macs",
        "_shared",
        "last_stamp_ns",
        "preshared_key",
        "public_key",
    )

    def __init__(self, shared: InterfaceState, public_key: PublicKey) -> None:
        self._shared = shared
        self.public_key = public_key
        self.preshared_key = PresharedKey.ZERO
        self._is_low_order: bool | None = None  # None until it matters: finding out is slow
        self._macs: MacGenerator | None = None
        # A peer that was removed and comes back has not forgotten our last timestamp.
        self.last_stamp_ns = shared.stamps.pop(public_key, 0)
        self.handle_key_change()

    def is_low_order(self) -> bool:
        """Whether the public key is a low-order point: then no shared secret can be secret."""
        if self._is_low_order is None:
            identity = self._shared.identity
            if identity is None:
                self._is_low_order = self.public_key.is_low_order
            else:
                # What it computes on the way will be needed anyway.
                self._is_low_order = identity.is_low_order(bytes(self.public_key))
        return self._is_low_order

    def macs(self) -> MacGenerator:
        """The maker of mac1 and mac2 for messages to this peer, with the cookie it holds."""
        if self._macs is None:
            self._macs = MacGenerator(self.public_key)
        return self._macs

    def create_initiation(
        self, identity: StaticIdentity, local_index: int, stamp_ns: int
    ) -> tuple[bytes, AwaitedResponse]:
        """A new initiation by our static key, without its MACs.

        The peer's key must not be of low order. `stamp_ns` is later than `last_stamp_ns`.
        """
        self.last_stamp_ns = stamp_ns
        return identity.create_initiation(
            bytes(self.public_key), self.draw_ephemeral(), local_index, tai64n.encode(stamp_ns)
        )

    def draw_ephemeral(self) -> bytes:
        """A new ephemeral key, of which the listener, if there is one, knows."""
        ephemeral = self._shared.random(KEY_LENGTH)
        if self._shared.on_ephemeral is not None:
            key = PrivateKey.from_random(ephemeral)
            self._shared.on_ephemeral(self.public_key, key, self.preshared_key)
        return ephemeral

    def handle_key_change(self) -> None:
        """Our private key is another one."""
        if self._shared.identity is not None:
            self._shared.identity.add_peer(bytes(self.public_key))

    def erase(self) -> None:
        """Forget the cookie."""
        self._macs = None

    def handle_removal(self) -> None:
        """The peer is removed; it may be added again."""
        if self._shared.identity is not None:
            self._shared.identity.remove_peer(bytes(self.public_key))
        self._macs = None
        self._shared.remember_stamp(self.public_key, self.last_stamp_ns)
