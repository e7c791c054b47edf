"""The sessions of one peer: previous, current, next.

- *current* is the one to send with.
- *next* is one that we answered to and that the peer has not used yet. Until its first message
  comes, nobody has proved to hold its keys, so it only receives. One that we initiated may overtake
  it; then it only receives to its end.
- *previous* only receives: what the peer sent before it knew of the current one.
"""

from typing import TYPE_CHECKING, Generic

from tunnel.protocol.constants import (
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE_AFTER_TIME,
)
from tunnel.protocol.driver import E, T
from tunnel.protocol.timers import NEVER

if TYPE_CHECKING:
    from tunnel.protocol.peer import Peer


class Session(Generic[E, T]):
    """The keys of one handshake, in the shape of a transport, and the times they live by.

    `refresh_on_send_at` and `refresh_on_receive_at` are NEVER for the side that answered: two
    sides that asked for a successor at the same age would collide each time.
    """

    __slots__ = (
        "created",
        "expires_at",
        "is_initiator",
        "is_superseded",
        "local_index",
        "receiver",
        "refresh_on_receive_at",
        "refresh_on_send_at",
        "remote_index",
        "send_until",
        "transport",
    )

    def __init__(
        self,
        peer: "Peer[E, T]",
        transport: T,
        *,
        local_index: int,
        remote_index: int,
        is_initiator: bool,
        now: float,
    ) -> None:
        self.transport = transport
        self.receiver: tuple[Peer[E, T], T] = (peer, transport)
        self.local_index = local_index
        self.remote_index = remote_index
        self.is_initiator = is_initiator
        self.is_superseded = False
        self.created = now
        self.refresh_on_send_at = now + REKEY_AFTER_TIME if is_initiator else NEVER
        self.refresh_on_receive_at = now + REKEY_ON_RECEIVE_AFTER_TIME if is_initiator else NEVER
        self.expires_at = now + REJECT_AFTER_TIME
        self.send_until = self.expires_at

    def stop_sending(self) -> None:
        """Go on receiving only: our static key has changed."""
        self.send_until = self.refresh_on_send_at = self.refresh_on_receive_at = -NEVER


class Sessions(Generic[E, T]):
    """The three places. Every change returns the sessions that lost theirs, to be forgotten."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Session[E, T] | None = None
        self.current: Session[E, T] | None = None
        self.next: Session[E, T] | None = None

    def standing(self) -> list[Session[E, T]]:
        """All there are."""
        return [s for s in (self.previous, self.current, self.next) if s is not None]

    def install_initiated(self, session: Session[E, T]) -> list[Session[E, T]]:
        """Our initiation was answered: the response proves the peer holds the keys."""
        before = self.standing()
        self.previous = self.current
        self.current = session
        if self.next is not None:
            # The peer initiated one as well and may be sending with it until it hears from us;
            # it must not take over then, or the two of us would only change places.
            self.next.is_superseded = True
        return self._gone(before)

    def install_answered(self, session: Session[E, T]) -> list[Session[E, T]]:
        """We answered an initiation: wait for the first message under the new keys.

        *previous* stays until that comes. Others drop it here; but if we have just made the
        current session ourselves, the peer may not know of it yet and still send with *previous*.
        """
        before = self.standing()
        self.next = session
        return self._gone(before)

    def confirm(self) -> list[Session[E, T]]:
        """The first message under `next` came: it is current from now on."""
        before = self.standing()
        self.previous = self.current
        self.current = self.next
        self.next = None
        return self._gone(before)

    def expire(self, now: float) -> list[Session[E, T]]:
        """Drop those whose time is up."""
        before = self.standing()
        if self.previous is not None and now >= self.previous.expires_at:
            self.previous = None
        if self.current is not None and now >= self.current.expires_at:
            self.current = None
        if self.next is not None and now >= self.next.expires_at:
            self.next = None
        return self._gone(before)

    def drop_next(self) -> list[Session[E, T]]:
        """Drop the one that waits for confirmation."""
        before = self.standing()
        self.next = None
        return self._gone(before)

    def clear(self) -> list[Session[E, T]]:
        """Drop all."""
        before = self.standing()
        self.previous = self.current = self.next = None
        return before

    def _gone(self, before: list[Session[E, T]]) -> list[Session[E, T]]:
        after = self.standing()
        return [session for session in before if session not in after]
