"""When to start a handshake with one peer, when to repeat it and when to give it up; and which
of the peer's initiations to answer.

The rules are those of `peer.py`, under *Starting* and *Answering*. Nothing is sent here and no
timer is set: each method that decides returns a step, and `Peer` carries it out.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeAlias

from crypto.keys import PresharedKey

from .constants import INITIATION_SPACING, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, RESTART_SPACING
from .context import InterfaceState
from .drops import ProtocolDrop
from .index_table import PendingInitiation
from .timers import NEVER, P

_NEVER_YET: Final = -NEVER


@dataclass(frozen=True, slots=True)
class Initiate:
    """Send an initiation now, then call `handle_initiated`."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Call `retransmit` at `when` (seconds), and not before."""

    when: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more is sent until a handshake is wanted again."""


HandshakeStep: TypeAlias = Initiate | RetryAt | GiveUp | None
"""What to do now; None for nothing."""


class Handshakes(Generic[P]):
    """The handshakes of one peer.

    `is_wanted` says whether we are trying to get a keypair, `attempts` how many initiations were
    sent since, `pending` is the initiation that may still be answered: it is in `by_index`, the
    interface's table of them, as long as it is here. All times are seconds.
    """

    __slots__ = (
        "_by_index",
        "_last_accepted_at",
        "_last_accepted_timestamp",
        "_last_sent_at",
        "_shared",
        "_starts_over",
        "_wanted_since",
        "attempts",
        "is_wanted",
        "pending",
    )

    def __init__(self, shared: InterfaceState, by_index: dict[int, PendingInitiation[P]]) -> None:
        self._shared = shared
        self._by_index = by_index
        # Ours to them.
        self.is_wanted = False
        self.attempts = 0
        self.pending: PendingInitiation[P] | None = None
        self._wanted_since = 0.0
        self._last_sent_at = _NEVER_YET
        self._starts_over = False  # an answer to what was sent last would be of no use
        # Theirs to us.
        self._last_accepted_timestamp = b""
        self._last_accepted_at = _NEVER_YET

    # --- Ours ------------------------------------------------------------------------------------

    def want(self, now: float, *, fresh: bool) -> HandshakeStep:
        """A keypair is needed. `fresh` traffic gives the handshake 90 s from now."""
        if self.is_wanted:
            if fresh:
                self._wanted_since = now
            return None
        self.is_wanted = True
        self.attempts = 0
        self._wanted_since = now
        return self._initiate_when_allowed(now)

    def retransmit(self, now: float) -> HandshakeStep:
        """The time named by the last `RetryAt` has come."""
        if now - self._wanted_since >= REKEY_ATTEMPT_TIME:
            self.is_wanted = False
            self.forget()
            return GiveUp()
        # Too early if we answered the peer meanwhile: what comes of that has its 5 s, too.
        return self._initiate_when_allowed(now)

    def handle_initiated(self, now: float) -> RetryAt:
        """An initiation is about to be sent, or could not be. The one before it is void."""
        self.forget()
        return RetryAt(now + REKEY_TIMEOUT + self._shared.jitter())

    def expect_response(self, pending: PendingInitiation[P]) -> None:
        """`pending` is being sent: its response is welcome from now on."""
        self.attempts += 1
        self.pending = self._by_index[pending.local_index] = pending

    def handle_sent(self, now: float) -> None:
        """A handshake message, of either kind, is being sent to the peer."""
        self._last_sent_at = now
        self._starts_over = False

    def stop(self) -> None:
        """A handshake completed, or the peer is removed: no other is wanted."""
        self.is_wanted = False
        self.forget()

    def handle_down(self) -> None:
        """The interface went down: no handshake is wanted, and the next one starts over."""
        self.stop()
        self._starts_over = True

    def forget(self) -> None:
        """Erase the initiation that may still be answered."""
        if self.pending is not None:
            del self._by_index[self.pending.local_index]
            self.pending = None

    def failure(self, *, has_endpoint: bool) -> str:
        """Why no handshake completed, for people."""
        if self._shared.private_key is None:
            return "the interface has no private key"
        if not has_endpoint:
            return "the peer's endpoint is not known"
        return "no answer" if self.attempts else "the clock is implausible"

    def handle_endpoint(self, now: float) -> HandshakeStep:
        """The peer's endpoint was set: if a handshake waited for that, it starts."""
        if self.is_wanted and self.pending is None:
            return RetryAt(max(now, self._allowed_at()))
        return None

    def start_over(self, now: float) -> HandshakeStep:
        """An answer to what was sent cannot be taken: if one is wanted, try again.

        At once, but RESTART_SPACING after what was sent: sooner, the peer would count it as a
        flood.
        """
        self.forget()
        self._starts_over = True
        return RetryAt(max(now, self._allowed_at())) if self.is_wanted else None

    def consume_response_untrusted(
        self, message: bytes, preshared_key: PresharedKey
    ) -> tuple[bytes, bytes] | None:
        """The keys to send and to receive with, if `message` answers the pending initiation; it is
        no longer pending then.

        Otherwise None. A forgery must not stand in the way of the true response: the initiation
        stays pending.
        """
        if self.pending is None:
            return None
        keys = self.pending.awaited.consume_response(message, bytes(preshared_key))
        if keys is not None:
            self.forget()
        return keys

    def _allowed_at(self) -> float:
        """No initiation is sent before this."""
        return self._last_sent_at + (RESTART_SPACING if self._starts_over else REKEY_TIMEOUT)

    def _initiate_when_allowed(self, now: float) -> HandshakeStep:
        allowed_at = self._allowed_at()
        if now >= allowed_at:
            return Initiate()
        # A handshake that starts over is in step with no other: it needs no jitter.
        return RetryAt(allowed_at + (0.0 if self._starts_over else self._shared.jitter()))

    # --- Theirs ----------------------------------------------------------------------------------

    @property
    def last_accepted_timestamp(self) -> bytes:
        """Of the last initiation that was answered; empty before the first."""
        return self._last_accepted_timestamp

    def refuse_until(self, timestamp: bytes) -> None:
        """Answer no initiation that is not later than this, either."""
        self._last_accepted_timestamp = max(self._last_accepted_timestamp, timestamp)

    def refusal(self, timestamp: bytes, now: float) -> ProtocolDrop | None:
        """Why an authentic initiation is not answered; None, and remembered, if it is to be."""
        if timestamp <= self._last_accepted_timestamp:
            return ProtocolDrop.OLD_TIMESTAMP
        if now - self._last_accepted_at < INITIATION_SPACING:
            return ProtocolDrop.HANDSHAKE_FLOOD
        self._last_accepted_timestamp = timestamp
        self._last_accepted_at = now
        return None
