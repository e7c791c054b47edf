"""What the protocol asks of its driver, besides events (`events.py`)."""

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .boundary import Endpoint, Transport
    from .peer import Peer


@unique
class DatagramKind(StrEnum):
    """Which handshake message a datagram is."""

    INITIATION = "initiation"
    RESPONSE = "response"
    COOKIE_REPLY = "cookie_reply"


@dataclass(frozen=True, slots=True)
class Datagram:
    """Send `data` to `endpoint`, as it is. Handshake messages carry DSCP AF41 (0x88).

    `peer` is None for a cookie reply: it answers an address that has not proved to be anybody.
    The bytes are already counted in the peer's `tx_bytes`.
    """

    peer: "Peer | None"
    endpoint: "Endpoint"
    data: bytes
    kind: DatagramKind


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal `frames` with `transport`, send them to the peer's endpoint, call `handle_sent`.

    No frames means: seal an empty message, a keepalive (`handle_sent` with `data=False`).
    """

    peer: "Peer"
    transport: "Transport"
    frames: tuple[bytes, ...]
