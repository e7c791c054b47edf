"""Events: what happened, for logs, metrics and name resolution. The protocol needs no answer.

They are plain values: the key of the peer, and where it was reached at that moment. An event may be
kept as long as one likes; it keeps no peer alive.
"""

from dataclasses import dataclass

from crypto.keys import PublicKey

from .driver import UdpAddress
from .drops import ProtocolDrop


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; always one of the classes below."""


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """A keypair is there and is used for sending from now on.

    `round_trip` is seconds from our initiation to the response, or from our response to the
    first message under the new keys.
    """

    public_key: PublicKey
    endpoint: UdpAddress | None
    is_initiator: bool
    local_index: int
    remote_index: int
    round_trip: float


@dataclass(frozen=True, slots=True)
class PeerConnected(Event):
    """There was no session with the peer, and now there is one that both sides have confirmed.

    `rx_bytes` and `tx_bytes` are those of the peer so far.
    """

    public_key: PublicKey
    endpoint: UdpAddress | None
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class PeerDisconnected(Event):
    """The last session with the peer is over. `reason` is for people.

    `rx_bytes` and `tx_bytes` are those of the peer so far, `endpoint` where it was last.
    """

    public_key: PublicKey
    endpoint: UdpAddress | None
    reason: str
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class QuotaReached(Event):
    """A packet was dropped, for the first time in this `period`, as its peer's quota is used up.

    `size` is the quota, of which `used` bytes are used.
    """

    public_key: PublicKey
    size: int
    used: int
    period: str


@dataclass(frozen=True, slots=True)
class HandshakeUnanswered(Event):
    """An initiation to `endpoint` got no answer in 5 s; the next one follows.

    `attempt` counts from 1. The time to look the endpoint's name up again.
    """

    public_key: PublicKey
    endpoint: UdpAddress | None
    attempt: int


@dataclass(frozen=True, slots=True)
class HandshakeRefused(Event):
    """A handshake message from `endpoint` was dropped as its sender cannot mean it to be.

    `public_key` is the sender's as far as it is known. At most once a minute for each reason: what
    anyone on the Internet can send must not fill a log.
    """

    reason: ProtocolDrop
    endpoint: UdpAddress
    public_key: PublicKey | None


@dataclass(frozen=True, slots=True)
class HandshakeFailed(Event):
    """No handshake completed in 90 s. `dropped` staged frames are gone; new traffic starts again.

    `reason` is for people.
    """

    public_key: PublicKey
    endpoint: UdpAddress | None
    attempts: int
    dropped: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRoamed(Event):
    """An authenticated message came from a new address, and replies go there from now on."""

    public_key: PublicKey
    old: UdpAddress | None
    new: UdpAddress


@dataclass(frozen=True, slots=True)
class LocalAddressChanged(Event):
    """The peer has not moved, but reached another address of ours: replies come from there."""

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class RoutingLoop(Event):
    """A datagram to `endpoint` came back as a packet to carry: the route leads into the tunnel.

    Once for each endpoint of a peer, until a handshake with it completes.
    """

    public_key: PublicKey
    endpoint: UdpAddress


@dataclass(frozen=True, slots=True)
class KeypairExpired(Event):
    """A keypair turned 180 s old and its keys are erased."""

    public_key: PublicKey
    local_index: int
    remote_index: int


@dataclass(frozen=True, slots=True)
class KeysErased(Event):
    """540 s without a new keypair: nothing secret but the static keys is left of this peer."""

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class PeerRemoved(Event):
    """A peer was removed: by request, or, with `own_key`, because its key became our own."""

    public_key: PublicKey
    own_key: bool


@dataclass(frozen=True, slots=True)
class ClockImplausible(Event):
    """The wall clock cannot be right. To be shown loudly.

    `refused` handshakes are not sent at all: a responder remembers the timestamp of the last
    initiation for ever, so one from the far future would make our key useless with it
    (CVE-2021-46873). `problem` says what is wrong and how to fix it.
    """

    unix_ns: int
    refused: bool
    problem: str
