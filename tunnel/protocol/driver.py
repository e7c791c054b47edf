"""What the driver hands to the protocol: endpoints, ciphers, randomness, the wall clock."""

from collections.abc import Callable, Hashable
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
