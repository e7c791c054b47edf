"""What the driver hands in: endpoints, ciphers, handshakes, randomness, the wall clock."""

from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeVar

from crypto.keys import PresharedKey, PrivateKey, PublicKey


class UdpAddress(Hashable, Protocol):
    """A peer's endpoint. Immutable; equal endpoints compare equal.

    It may carry more than is seen here (the local address a packet arrived at, a scope): the
    protocol hands it back as it came.
    """

    @property
    def address(self) -> bytes:
        """4 bytes (IPv4) or 16 bytes (IPv6) in network order."""

    @property
    def port(self) -> int:
        """1 to 65535."""


class Transport(Protocol):
    """The cipher of one keypair. The protocol owns its life; only the driver seals and opens."""

    @property
    def send_counter(self) -> int:
        """Messages sealed so far."""


class AwaitedResponse(Protocol):
    """An initiation of ours that may still be answered."""

    def consume_response(
        self, message: bytes, preshared_key: bytes, /
    ) -> tuple[bytes, bytes] | None:
        """The keys to send and to receive with (32 bytes each); None, with nothing changed, if
        `message` is not a response to it."""


class ReceivedInitiations(Protocol):
    """Initiations that were opened together. Each has its place, those that did not open too."""

    @property
    def senders(self) -> list[tuple[bytes, int, bytes] | None]:
        """At each place the sender's public key, its receiver index and the timestamp (12 bytes);
        None for an initiation that did not open. Whoever asks waits until they are opened."""

    def create_responses(
        self, answers: list[tuple[int, bytes, int, bytes]], /
    ) -> Iterable[tuple[bytes, bytes, bytes]]:
        """Answer some of them: for each a place, 32 new random bytes as ephemeral key, our new
        index and the preshared key, all zeros for none.

        For each the response (92 bytes, both MACs zero), and the keys to send and to receive with;
        once, and whoever iterates waits for them. Raises ValueError at a place that did not open or
        is answered already.
        """


class StaticIdentity(Protocol):
    """A static key of ours: the Diffie-Hellman and the hash chain of its handshakes.

    See the whitepaper, sections 5.4.2 and 5.4.3. Keys and messages are bytes. mac1 and mac2 are not
    its business: it reads none and writes zeros.
    """

    def add_peer(self, public_key: bytes, /) -> None:
        """Keep the DH of the static keys from its first use on: no handshake changes it."""

    def prepare(self, most: int, /) -> bool:
        """Compute that of at most `most` peers ahead; whether others may be left."""

    def remove_peer(self, public_key: bytes, /) -> None:
        """Forget it."""

    def is_low_order(self, public_key: bytes, /) -> bool:
        """Whether no secret can be agreed on with `public_key`."""

    def create_initiation(
        self, public_key: bytes, ephemeral: bytes, local_index: int, timestamp: bytes, /
    ) -> tuple[bytes, AwaitedResponse]:
        """Start a handshake with the owner of `public_key`: the message (148 bytes).

        `ephemeral` is 32 new random bytes. Raises ValueError if `public_key` is of low order.
        """

    def consume_initiations(self, messages: list[bytes], /) -> ReceivedInitiations:
        """Open many initiations at once. They are hostile; raises nothing for what is in them."""


MakeIdentity = Callable[[bytes], StaticIdentity]
"""By the private key, 32 bytes."""

E = TypeVar("E", bound=UdpAddress)
T = TypeVar("T", bound=Transport)
# The driver's own classes, so that it gets back what it handed in, as what it is.

MakeTransport = Callable[[bytes, bytes, int, int], T]
"""(send key, receive key, local index, remote index): keys of 32 bytes, indices of 32 bits."""

Random = Callable[[int], bytes]
"""The given number of unpredictable bytes: `os.urandom`, or a seeded generator in a simulation."""

UnixTime = Callable[[], int]
"""The wall clock, nanoseconds since 1970."""

RetryEndpoint = Callable[[E], E]
"""The endpoint to try next when the given one did not answer. The place to forget the local
address it was last heard on, which may be gone."""

OnEphemeral = Callable[[PublicKey, PrivateKey, PresharedKey], None]
"""Called with every ephemeral key drawn: the peer's public key, the key, the preshared key it is
used with. They decrypt the traffic, so there is a listener only while a capture asks for them."""
