"""What happens to a tunnel, as dataclasses to match on; known as `tunnel.events`.

    match event:
        case events.HandshakeDone(peer=peer, round_trip=seconds): ...
        case events.Roamed(peer=peer, new=address): ...

`str(event)` is the same line as in the log. docs/control.md describes each type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tunnel.control.messages.changes import Change
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.sentences import sentence

__all__ = [
    "AnyEvent",
    "AttachedTo",
    "DetachedFrom",
    "Down",
    "Dropped",
    "EventsLost",
    "HandshakeDone",
    "HandshakeDropped",
    "KeysForgotten",
    "LoopingRoute",
    "Missing",
    "NoAnswer",
    "PeerGone",
    "PeerOffline",
    "PeerOnline",
    "PeerUnreachable",
    "PortChanged",
    "QuotaUsedUp",
    "Reloaded",
    "Restarted",
    "Roamed",
    "SessionExpired",
    "UnknownEvent",
    "Up",
    "WaitingFor",
    "WrongClock",
    "typed",
]


@dataclass(frozen=True, kw_only=True)
class AnyEvent:
    """Something that happened: always one of the classes below.

    `time` is Unix time in seconds, `type` the word for it on the control socket, `details` the
    same facts as JSON-ready types. Keys of peers are base64 text, endpoints ADDRESS:PORT; `name` is
    the friendly_name of the peer that it concerns, empty if there is none.
    """

    type: ClassVar[str] = ""
    time: float
    details: Mapping[str, Any] = field(repr=False, compare=False)
    name: str = ""

    def __str__(self) -> str:
        return sentence(self.type, self.details)


@dataclass(frozen=True, kw_only=True)
class Up(AnyEvent):
    """The tunnel is up."""

    type: ClassVar[str] = "up"


@dataclass(frozen=True, kw_only=True)
class Restarted(AnyEvent):
    """The tunnel goes on with another daemon, after `pause` seconds without one.

    `restarts` is how many there were before, `sessions` how many peers had a session at once.
    """

    type: ClassVar[str] = "restarted"
    restarts: int
    pause: float
    sessions: int


@dataclass(frozen=True, kw_only=True)
class Down(AnyEvent):
    """The last event, once everything is undone.

    `failures` is what went wrong meanwhile, `notes` what else there is to know. With `restarting`
    the interface stays for another daemon.
    """

    type: ClassVar[str] = "down"
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    restarting: bool


@dataclass(frozen=True, kw_only=True)
class HandshakeDone(AnyEvent):
    """There is a session with `peer`. `round_trip` is in seconds."""

    type: ClassVar[str] = "handshake"
    peer: str
    endpoint: str | None
    is_initiator: bool
    round_trip: float


@dataclass(frozen=True, kw_only=True)
class NoAnswer(AnyEvent):
    """The peer did not answer an attempt, the first of which is 1; the next one follows."""

    type: ClassVar[str] = "handshake"
    peer: str
    endpoint: str | None
    attempt: int


@dataclass(frozen=True, kw_only=True)
class PeerUnreachable(AnyEvent):
    """No session after all these attempts; `dropped` packets that waited for one are gone."""

    type: ClassVar[str] = "handshake"
    peer: str
    endpoint: str | None
    attempts: int
    dropped: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class HandshakeDropped(AnyEvent):
    """A handshake message was dropped, for `reason`; at most one event a minute for each reason.

    `peer` is None if the sender's key is not known.
    """

    type: ClassVar[str] = "refused"
    peer: str | None
    endpoint: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Roamed(AnyEvent):
    """The peer is at another address. `left_out` are moves since the last event about it."""

    type: ClassVar[str] = "roamed"
    peer: str
    old: str | None
    new: str
    left_out: int


@dataclass(frozen=True, kw_only=True)
class PeerOnline(AnyEvent):
    """There was no session with `peer`, and now there is one that both sides have confirmed.

    `rx_bytes` and `tx_bytes` are the peer's so far.
    """

    type: ClassVar[str] = "connected"
    peer: str
    endpoint: str | None
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, kw_only=True)
class PeerOffline(AnyEvent):
    """The last session with `peer` is over, for a `reason` in words; the bytes as in PeerOnline."""

    type: ClassVar[str] = "disconnected"
    peer: str
    endpoint: str | None
    reason: str
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, kw_only=True)
class QuotaUsedUp(AnyEvent):
    """A packet did not fit into the quota of `peer`: bytes, in each `period`, empty for none."""

    type: ClassVar[str] = "quota_reached"
    peer: str
    quota: int
    used: int
    period: str


@dataclass(frozen=True, kw_only=True)
class SessionExpired(AnyEvent):
    """The session with `peer` has expired."""

    type: ClassVar[str] = "session_expired"
    peer: str


@dataclass(frozen=True, kw_only=True)
class KeysForgotten(AnyEvent):
    """The keys of the sessions with `peer` were erased: too long without a handshake."""

    type: ClassVar[str] = "keys_erased"
    peer: str


@dataclass(frozen=True, kw_only=True)
class PeerGone(AnyEvent):
    """The peer was removed; with `own_key` because its key has become our own."""

    type: ClassVar[str] = "peer_removed"
    peer: str
    own_key: bool


@dataclass(frozen=True, kw_only=True)
class LoopingRoute(AnyEvent):
    """The route to `endpoint` leads into the tunnel itself."""

    type: ClassVar[str] = "routing_loop"
    peer: str
    endpoint: str


@dataclass(frozen=True, kw_only=True)
class WrongClock(AnyEvent):
    """The clock of this machine cannot be right; with `refused`, handshakes wait for it."""

    type: ClassVar[str] = "clock"
    problem: str
    refused: bool


@dataclass(frozen=True, kw_only=True)
class Dropped(AnyEvent):
    """Packets were dropped: `new` ones since the last such event, and `total`, by reason."""

    type: ClassVar[str] = "drops"
    new: Mapping[str, int]
    total: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Reloaded(AnyEvent):
    """The conf was applied; or not, and nothing was changed: then `error` says why.

    `changes` are at most 100, `more_changes` says how many more there are.
    """

    type: ClassVar[str] = "reload"
    error: str | None
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    more_changes: int = 0


@dataclass(frozen=True, kw_only=True)
class Missing(AnyEvent):
    """What other programs have removed, at most 100 `items`; none when all are there again."""

    type: ClassVar[str] = "missing"
    items: tuple[str, ...]
    more_items: int


@dataclass(frozen=True, kw_only=True)
class PortChanged(AnyEvent):
    """The UDP port has changed."""

    type: ClassVar[str] = "port"
    old: int
    new: int


@dataclass(frozen=True, kw_only=True)
class AttachedTo(AnyEvent):
    """The interface is attached to `target`; `netns` is the path of its network namespace."""

    type: ClassVar[str] = "attached"
    target: str
    netns: str


@dataclass(frozen=True, kw_only=True)
class WaitingFor(AnyEvent):
    """The target of the interface is not running, so the interface waits for it."""

    type: ClassVar[str] = "waiting"
    target: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DetachedFrom(AnyEvent):
    """The interface has returned from `target` to this host."""

    type: ClassVar[str] = "detached"
    target: str


@dataclass(frozen=True, kw_only=True)
class EventsLost(AnyEvent):
    """This reader was too slow, and has lost `count` events."""

    type: ClassVar[str] = "lost"
    count: int


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(AnyEvent):
    """An event that this version does not know; `details` has what is known of it."""

    kind: str

    def __str__(self) -> str:
        return sentence(self.kind, self.details)


_OUTCOMES = {"completed": HandshakeDone, "unanswered": NoAnswer, "failed": PeerUnreachable}
_BY_TYPE = {
    kind.type: kind
    for kind in AnyEvent.__subclasses__()
    if kind is not UnknownEvent and kind.type != HandshakeDone.type
}


def typed(event: TunnelEvent) -> AnyEvent:
    """The event as an object of the class for it."""
    of = event.details
    kind: type[AnyEvent] | None = _BY_TYPE.get(event.type)
    if event.type == HandshakeDone.type:
        kind = _OUTCOMES.get(str(of.get("outcome")))
    if kind is None:
        return UnknownEvent(time=event.time, details=of, kind=event.type)
    fields = {each.name for each in dataclasses.fields(kind)} & of.keys()
    values = {name: _value(name, of[name]) for name in fields}
    return kind(time=event.time, details=of, **values)


def _value(name: str, value: Any) -> Any:
    if name == "changes":
        return tuple(Change.from_json(change) for change in value)
    return tuple(value) if isinstance(value, list) else value
