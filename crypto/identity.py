"""Handshakes by one private key of ours, in bytes: `StaticIdentity` of `tunnel.protocol.driver`.

The compiled datapath has a twin of it (`native/src/handshake.rs`).
"""

from crypto.errors import HandshakeError, LowOrderPoint, MessageError
from crypto.handshake import Initiator, Responder
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse

__all__ = ["Identity", "OpenedInitiations", "SentInitiation"]


class SentInitiation:
    """An initiation of ours that may be answered, once."""

    __slots__ = ("_initiator",)

    def __init__(self, initiator: Initiator) -> None:
        self._initiator = initiator

    def consume_response(self, message: bytes, preshared_key: bytes) -> tuple[bytes, bytes] | None:
        """The keys to send and to receive with; None if `message` is not the response."""
        self._initiator.preshared_key = PresharedKey(preshared_key)
        try:
            response = HandshakeResponse.parse_untrusted(message)
            keys = self._initiator.consume_response_untrusted(response)
        except (HandshakeError, MessageError):
            return None
        return keys.send, keys.receive


class OpenedInitiations:
    """Initiations that were opened together; each keeps its place, also one that did not open."""

    __slots__ = ("_responders",)

    def __init__(self, responders: list[Responder | None]) -> None:
        self._responders = responders

    @property
    def senders(self) -> list[tuple[bytes, int, bytes] | None]:
        """Public key, receiver index and timestamp of each sender; None where none opened."""
        return [
            None
            if responder is None
            else (bytes(responder.remote_static), responder.remote_index, responder.timestamp)
            for responder in self._responders
        ]

    def create_responses(
        self, answers: list[tuple[int, bytes, int, bytes]]
    ) -> list[tuple[bytes, bytes, bytes]]:
        """Answer those at the given places; see `ReceivedInitiations` of the protocol."""
        responses = []
        for place, ephemeral, local_index, preshared_key in answers:
            responder = self._responders[place] if place < len(self._responders) else None
            if responder is None:
                raise ValueError("no initiation is to be answered there")
            self._responders[place] = None
            message, keys = responder.create_response(
                ephemeral=PrivateKey(ephemeral),
                sender=local_index,
                preshared_key=PresharedKey(preshared_key),
            )
            responses.append((message.emit(), keys.send, keys.receive))
        return responses


class Identity:
    """A static key of ours. The DH with the public key of each peer is made once, when needed."""

    __slots__ = ("_key", "_lacking", "_peers")

    def __init__(self, private_key: bytes) -> None:
        self._key = PrivateKey(private_key)
        self._peers: dict[PublicKey, bytes | None] = {}
        self._lacking: list[PublicKey] = []

    def add_peer(self, public_key: bytes) -> None:
        """Keep the DH with `public_key` from its first use on."""
        self._peers.setdefault(PublicKey(public_key))
        self._lacking.append(PublicKey(public_key))

    def prepare(self, most: int) -> bool:
        """Compute the DH with at most `most` peers ahead; whether others may be left."""
        for _ in range(most):
            if not self._lacking:
                return False
            self._static_static_untrusted(self._lacking.pop())
        return True

    def remove_peer(self, public_key: bytes) -> None:
        """Forget the DH with `public_key`."""
        self._peers.pop(PublicKey(public_key), None)

    def is_low_order(self, public_key: bytes) -> bool:
        """Whether the DH with `public_key` is all zeros, so that no secret can be agreed on."""
        try:
            self._static_static(PublicKey(public_key))
        except LowOrderPoint:
            return True
        return False

    def create_initiation(
        self, public_key: bytes, ephemeral: bytes, local_index: int, timestamp: bytes
    ) -> tuple[bytes, SentInitiation]:
        """Start a handshake with the owner of `public_key`.

        Raises ValueError if that is of low order.
        """
        remote = PublicKey(public_key)
        try:
            static_static = self._static_static(remote)
        except LowOrderPoint as error:
            raise ValueError(str(error)) from None
        initiator = Initiator(
            static=self._key,
            remote_static=remote,
            preshared_key=PresharedKey.ZERO,
            static_static=static_static,
        )
        message = initiator.create_initiation(
            ephemeral=PrivateKey(ephemeral), sender=local_index, timestamp=timestamp
        )
        return message.emit(), SentInitiation(initiator)

    def consume_initiations(self, messages: list[bytes]) -> OpenedInitiations:
        """Open initiations. Never raises."""
        return OpenedInitiations([self._consume_untrusted(message) for message in messages])

    def _consume_untrusted(self, message: bytes) -> Responder | None:
        try:
            return Responder.consume_initiation_untrusted(
                HandshakeInitiation.parse_untrusted(message),
                static=self._key,
                static_static=self._static_static_untrusted,
            )
        except (HandshakeError, MessageError):
            return None

    def _static_static_untrusted(self, public_key: PublicKey) -> bytes | None:
        """The DH with a key that somebody claims; None if it is of low order."""
        try:
            return self._static_static(public_key)
        except LowOrderPoint:
            return None

    def _static_static(self, public_key: PublicKey) -> bytes:
        known = self._peers.get(public_key)
        if known is not None:
            return known
        shared = self._key.exchange(public_key)
        if public_key in self._peers:
            # Of strangers nothing is kept: they may be any number.
            self._peers[public_key] = shared
        return shared
