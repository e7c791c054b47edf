"""The keypairs of one peer: previous, current, next.

- *current* is the one to send with.
- *next* is one that we answered to and that the peer has not used yet. Until its first message
  comes, the peer has not proved that it holds the keys, so it only receives. One that we initiated
  may overtake it; from then on it only receives, until it expires, unless the two crossed and it
  is to prevail (see *Crossing* in `peer.py`).
- *previous* only receives: what the peer sent before it knew of the current one.

A keypair is what one handshake gives: a key to send with and a key to receive with.
"""

from collections.abc import Callable
from typing import Generic

from .constants import (
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE_AFTER_TIME,
)
from .driver import T
from .timers import NEVER, P


class Keypair(Generic[P, T]):
    """The keys of one handshake, in the shape of a transport, and the times they live by.

    `refresh_on_send_at` and `refresh_on_receive_at` are NEVER for the responder: two sides that
    asked for a successor at the same age would collide each time. All times are seconds.
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
        peer: P,
        transport: T,
        local_index: int,
        remote_index: int,
        now: float,
        *,
        is_initiator: bool,
    ) -> None:
        self.transport = transport
        # Made here once, because it is handed out for every batch received.
        self.receiver: tuple[P, T] = (peer, transport)
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
        """Only receive from now on: our static key has changed."""
        self.send_until = self.refresh_on_send_at = self.refresh_on_receive_at = -NEVER


class Keypairs(Generic[P, T]):
    """The three slots. `by_index` is the interface's table of keypairs, kept up to date here.

    `on_change` is called with the peer whenever a slot has another keypair.
    """

    __slots__ = ("_by_index", "_on_change", "current", "next", "previous")

    def __init__(self, by_index: dict[int, Keypair[P, T]], on_change: Callable[[P], None]) -> None:
        self._by_index = by_index
        self._on_change = on_change
        self.previous: Keypair[P, T] | None = None
        self.current: Keypair[P, T] | None = None
        self.next: Keypair[P, T] | None = None

    def all(self) -> list[Keypair[P, T]]:
        """Those that are there, the oldest slot first."""
        return [k for k in (self.previous, self.current, self.next) if k is not None]

    def transport_for_sending(self, now: float) -> T | None:
        """The cipher of the current one while it may still send."""
        keypair = self.current
        if keypair is None or now >= keypair.send_until:
            return None
        transport = keypair.transport
        return transport if transport.send_counter < REJECT_AFTER_MESSAGES else None

    def next_expiry(self) -> float:
        """When the first of them expires; NEVER if there is none."""
        return min((keypair.expires_at for keypair in self.all()), default=NEVER)

    def restore(
        self,
        previous: Keypair[P, T] | None,
        current: Keypair[P, T] | None,
        following: Keypair[P, T] | None,
    ) -> None:
        """Go on with those of an earlier process, whose indices must be free."""
        for keypair in (previous, current, following):
            if keypair is not None:
                self._by_index[keypair.local_index] = keypair
        self._fill(previous, current, following)

    def install_initiated(self, keypair: Keypair[P, T], *, keep_next: bool) -> None:
        """Our initiation was answered: the response proves that the peer holds the keys.

        `keep_next`: the peer's first message under *next*, if there is one, still makes that the
        current keypair.
        """
        if self.next is not None and not keep_next:
            # The peer initiated one as well and may send with it until it hears from us. If it
            # took over then, the two keypairs would only change places.
            self.next.is_superseded = True
        self._by_index[keypair.local_index] = keypair
        self._fill(self.current, keypair, self.next)

    def install_answered(self, keypair: Keypair[P, T]) -> None:
        """We answered an initiation: wait for the first message under the new keys.

        *previous* stays until that comes. Others drop it here; but if we have just made the
        current keypair ourselves, the peer may not know of it yet and still send with *previous*.
        """
        self._by_index[keypair.local_index] = keypair
        self._fill(self.previous, self.current, keypair)

    def confirm(self) -> None:
        """The first message under `next` came: it is current from now on."""
        current, waiting = self.current, self.next
        if current is not None and waiting is not None and current.created > waiting.created:
            # We initiated the current one while `next` waited: the two crossed, and the peer keeps
            # to this one. What it sent before may still come under *previous*.
            current.is_superseded = True
            self._fill(self.previous, waiting, current)
        else:
            self._fill(current, waiting, None)

    def expire(self, now: float) -> list[Keypair[P, T]]:
        """Drop and return those that are too old."""
        return self._fill(
            *(
                None if keypair is not None and now >= keypair.expires_at else keypair
                for keypair in (self.previous, self.current, self.next)
            )
        )

    def drop_next(self) -> None:
        """Drop the one that waits for confirmation."""
        self._fill(self.previous, self.current, None)

    def clear(self) -> None:
        """Drop all."""
        self._fill(None, None, None)

    def _fill(
        self,
        previous: Keypair[P, T] | None,
        current: Keypair[P, T] | None,
        following: Keypair[P, T] | None,
    ) -> list[Keypair[P, T]]:
        """Set the slots; those that have lost theirs are dropped from the table and returned."""
        before = self.all()
        self.previous, self.current, self.next = previous, current, following
        after = self.all()
        dropped = [keypair for keypair in before if keypair not in after]
        for keypair in dropped:
            del self._by_index[keypair.local_index]
        for keypair in (before or after)[:1]:
            self._on_change(keypair.receiver[0])
        return dropped
