"""What the protocol asks of its driver, besides events (`events.py`)."""

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Generic

from .driver import E, T
from .timers import P


@unique
class DatagramKind(StrEnum):
    """Which handshake message a datagram is."""

    INITIATION = "initiation"
    RESPONSE = "response"
    COOKIE_REPLY = "cookie_reply"


@dataclass(frozen=True, slots=True)
class Datagram(Generic[P, E]):
    """Send `data` to `endpoint`, as it is. Handshake messages carry DSCP AF41 (0x88).

    `peer` is None for a cookie reply: it answers an address that has proved nothing yet.
    The bytes are already counted in the peer's `tx_bytes`.
    """

    peer: P | None
    endpoint: E
    data: bytes
    kind: DatagramKind


@dataclass(frozen=True, slots=True)
class Seal(Generic[P, T]):
    """Seal `frames` with `transport`, send them to the peer's endpoint, call `handle_sent`.

    No frames means: seal an empty message, a keepalive (`handle_sent` with `data=False`).
    """

    peer: P
    transport: T
    frames: tuple[bytes, ...]
