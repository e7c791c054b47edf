"""What the protocol asks of its driver, besides events (`events.py`)."""

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Generic

from tunnel.protocol.driver import E, T

if TYPE_CHECKING:
    from .peer import Peer


@unique
class DatagramKind(StrEnum):
    """Which handshake message a datagram is."""

    INITIATION = "initiation"
    RESPONSE = "response"
    COOKIE_REPLY = "cookie_reply"


@dataclass(frozen=True, slots=True)
class Datagram(Generic[E, T]):
    """Send `data` to `endpoint`, as it is. Handshake messages carry DSCP AF41 (0x88).

    `peer` is None for a cookie reply: it answers an address that has not proved to be anybody.
    The bytes are already counted in the peer's `tx_bytes`.
    """

    peer: "Peer[E, T] | None"
    endpoint: E
    data: bytes
    kind: DatagramKind


@dataclass(frozen=True, slots=True)
class Seal(Generic[E, T]):
    """Seal `frames` with `transport`, send them to the peer's endpoint, call `handle_sent`.

    No frames means: seal an empty message, a keepalive (`handle_sent` with `data=False`).
    """

    peer: "Peer[E, T]"
    transport: T
    frames: tuple[bytes, ...]
