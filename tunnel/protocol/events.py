"""Events: what happened, for logs, metrics and name resolution. The protocol needs no answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunnel.protocol.driver import Endpoint

    from .peer import Peer


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; always one of the classes below."""


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """A session stands and is used for sending from now on.

    `round_trip` is seconds from our initiation to the response, or from our response to the
    first message under the new keys.
    """

    peer: "Peer[Any, Any]"
    is_initiator: bool
    local_index: int
    remote_index: int
    round_trip: float


@dataclass(frozen=True, slots=True)
class HandshakeUnanswered(Event):
    """An initiation got no answer in 5 s; the next one follows. `attempt` counts from 1.

    The time to look the endpoint's name up again.
    """

    peer: "Peer[Any, Any]"
    attempt: int


@dataclass(frozen=True, slots=True)
class HandshakeFailed(Event):
    """No session came about in 90 s. `dropped` staged frames are gone; new traffic starts again.

    `reason` is for people.
    """

    peer: "Peer[Any, Any]"
    attempts: int
    dropped: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRoamed(Event):
    """An authenticated message came from a new address, and replies go there from now on."""

    peer: "Peer[Any, Any]"
    old: "Endpoint | None"
    new: "Endpoint"


@dataclass(frozen=True, slots=True)
class SessionExpired(Event):
    """A session reached its last second and its keys are forgotten."""

    peer: "Peer[Any, Any]"
    local_index: int
    remote_index: int


@dataclass(frozen=True, slots=True)
class KeysErased(Event):
    """540 s without a new session: nothing secret but the static keys is left of this peer."""

    peer: "Peer[Any, Any]"


@dataclass(frozen=True, slots=True)
class PeerRemoved(Event):
    """The protocol removed a peer by itself: its key became our own."""

    peer: "Peer[Any, Any]"


@dataclass(frozen=True, slots=True)
class ClockImplausible(Event):
    """The wall clock cannot be right. To be shown loudly.

    `refused` handshakes are not sent at all: a responder remembers the timestamp of the last
    initiation for ever, so one from the far future would make our key useless with it
    (CVE-2021-46873). `problem` says what is wrong and what mends it.
    """

    unix_ns: int
    refused: bool
    problem: str
