"""WireGuard's handshake (whitepaper, 5.4.2 and 5.4.3): an initiation, a response, two keys.

mac1 and mac2 are not looked at here: check them first (`cookies.MacChecker`), since that is
cheap and this is not. A message that fails changes nothing, so no one without the keys can
end a handshake that is under way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from crypto.errors import HandshakeError, HandshakeFault
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse
from crypto.noise import (
    SymmetricState,
    agree_untrusted,
    read_first_untrusted,
    read_second_untrusted,
    write_first,
    write_second,
)
from crypto.tai64n import TIMESTAMP_LENGTH

__all__ = ["HandshakeError", "HandshakeFault", "Initiator", "Responder", "TransportKeys"]

PROLOGUE: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_START: Final = SymmetricState.begin(PROLOGUE)


@dataclass(frozen=True, slots=True, eq=False)
class TransportKeys:
    """A session's two ChaCha20-Poly1305 keys (32 bytes each), as this side uses them."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """What an initiator has to keep until the response comes."""

    state: SymmetricState
    ephemeral: PrivateKey
    sender: int


class Initiator:
    """The side that speaks first, for one pair of static keys; reusable, one handshake at a time.

    Order of calls: `create_initiation`, then `consume_response_untrusted` until one succeeds.
    A new `create_initiation` replaces the pending one. `preshared_key` may be set at any time;
    the one that counts is that of the moment the response is consumed.

    `static_static` is `static.exchange(remote_static)` if the caller has kept it; without it
    the first initiation computes it. A `remote_static` of low order may be given, and then
    `create_initiation` refuses.
    """

    __slots__ = ("_pending", "_remote_static", "_static", "_static_static", "preshared_key")

    def __init__(
        self,
        *,
        static: PrivateKey,
        remote_static: PublicKey,
        preshared_key: PresharedKey,
        static_static: bytes | None = None,
    ) -> None:
        self._static = static
        self._remote_static = remote_static
        self._static_static = static_static
        self._pending: _Pending | None = None
        self.preshared_key = preshared_key

    @property
    def pending_index(self) -> int | None:
        """The index under which a response is awaited; None when no handshake is under way."""
        return None if self._pending is None else self._pending.sender

    def create_initiation(
        self, *, ephemeral: PrivateKey, sender: int, timestamp: bytes
    ) -> HandshakeInitiation:
        """Start a handshake; both MACs of the message are left zero.

        `ephemeral` is a new key of 32 random bytes each time, `sender` our new receiver index,
        `timestamp` the 12 bytes of `tai64n.encode`. Raises ValueError on a timestamp of another
        length or an index past 32 bits, and HandshakeError (LOW_ORDER) if the peer's key is a
        low-order point; the pending handshake, if any, then stands as it was.
        """
        if len(timestamp) != TIMESTAMP_LENGTH:
            raise ValueError(f"a TAI64N timestamp is 12 bytes long, found {len(timestamp)}")
        if self._static_static is None:
            self._static_static = agree_untrusted(self._static, self._remote_static)
        first = write_first(
            _START,
            static=self._static,
            ephemeral=ephemeral,
            remote_static=self._remote_static,
            payload=timestamp,
            static_static=self._static_static,
        )
        message = HandshakeInitiation(
            sender=sender,
            ephemeral=first.ephemeral,
            encrypted_static=first.encrypted_static,
            encrypted_timestamp=first.encrypted_payload,
        )
        self._pending = _Pending(first.state, ephemeral, sender)
        return message

    def consume_response_untrusted(self, message: HandshakeResponse) -> TransportKeys:
        """Finish the pending handshake and forget its secrets. Raises HandshakeError only.

        A refused response leaves the handshake pending. An accepted one is accepted once: the
        same bytes again raise HandshakeError (NOT_PENDING, or WRONG_RECEIVER around a newer
        initiation).
        """
        pending = self._pending
        if pending is None:
            raise HandshakeError(HandshakeFault.NOT_PENDING, "no handshake is under way")
        if message.receiver != pending.sender:
            raise HandshakeError(
                HandshakeFault.WRONG_RECEIVER, "the response answers another initiation"
            )
        state, _ = read_second_untrusted(
            pending.state,
            static=self._static,
            ephemeral=pending.ephemeral,
            remote_ephemeral=message.ephemeral,
            preshared_key=self.preshared_key,
            encrypted_payload=message.encrypted_nothing,
        )
        self._pending = None
        send, receive = state.split()
        return TransportKeys(send=send, receive=receive)

    def abandon(self) -> None:
        """Forget the pending handshake, if any, and its ephemeral key."""
        self._pending = None


class Responder:
    """The side that is spoken to, for one initiation.

    `consume_initiation_untrusted` opens the message and decides nothing: whether the sender
    is a peer, and its timestamp newer than the last, is for the caller to judge by
    `remote_static` and `timestamp` before it asks for `create_response`. Nothing is kept
    outside the object, so dropping it undoes everything.
    """

    __slots__ = ("_remote_ephemeral", "_state", "remote_index", "remote_static", "timestamp")

    def __init__(
        self,
        *,
        state: SymmetricState,
        remote_ephemeral: PublicKey,
        remote_static: PublicKey,
        remote_index: int,
        timestamp: bytes,
    ) -> None:
        """Internal: use `consume_initiation_untrusted`."""
        self._state: SymmetricState | None = state
        self._remote_ephemeral = remote_ephemeral
        self.remote_static: Final = remote_static
        self.remote_index: Final = remote_index
        self.timestamp: Final = timestamp

    @classmethod
    def consume_initiation_untrusted(
        cls,
        message: HandshakeInitiation,
        *,
        static: PrivateKey,
        static_static: Callable[[PublicKey], bytes | None] | None = None,
    ) -> Self:
        """Open an initiation. Raises HandshakeError only.

        `static_static` may look up `static.exchange(sender)` by the sender's key (a dict's
        `get` will do); where it gives None, the DH is computed.
        """
        opened = read_first_untrusted(
            _START,
            static=static,
            ephemeral=message.ephemeral,
            encrypted_static=message.encrypted_static,
            encrypted_payload=message.encrypted_timestamp,
            static_static=static_static,
        )
        return cls(
            state=opened.state,
            remote_ephemeral=PublicKey(message.ephemeral),
            remote_static=opened.remote_static,
            remote_index=message.sender,
            timestamp=opened.payload,
        )

    def create_response(
        self, *, ephemeral: PrivateKey, sender: int, preshared_key: PresharedKey
    ) -> tuple[HandshakeResponse, TransportKeys]:
        """Answer, once; both MACs of the message are left zero.

        `ephemeral` is a new key of 32 random bytes, `sender` our new receiver index. Raises
        HandshakeError (NOT_PENDING) when called again: a second answer would be a second
        session from one initiation. Raises ValueError on an index past 32 bits.
        """
        if self._state is None:
            raise HandshakeError(HandshakeFault.NOT_PENDING, "the initiation is answered already")
        state, ephemeral_public, encrypted_nothing = write_second(
            self._state,
            ephemeral=ephemeral,
            remote_ephemeral=self._remote_ephemeral,
            remote_static=self.remote_static,
            preshared_key=preshared_key,
            payload=b"",
        )
        message = HandshakeResponse(
            sender=sender,
            receiver=self.remote_index,
            ephemeral=ephemeral_public,
            encrypted_nothing=encrypted_nothing,
        )
        self._state = None
        receive, send = state.split()
        return message, TransportKeys(send=send, receive=receive)
