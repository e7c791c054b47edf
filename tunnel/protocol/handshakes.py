"""One peer's handshakes: when to start one, repeat it, give it up; which of theirs to answer.

The rules are those of `peer.py`, under *Starting* and *Answering*. What becomes of a handshake
that succeeds is decided there.
"""

from typing import TYPE_CHECKING, Generic

from crypto.errors import HandshakeError
from crypto.handshake import Initiator, Responder, TransportKeys
from crypto.messages import HandshakeResponse
from tunnel.protocol.driver import E, T
from tunnel.protocol.peer_keys import Credentials

from .constants import ANEW_SPACING, INITIATION_SPACING, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT
from .context import Context
from .drops import Drop
from .events import HandshakeUnanswered
from .outputs import Datagram, DatagramKind
from .timers import NEVER, Timer

if TYPE_CHECKING:
    from .peer import Peer


class PendingInitiation(Generic[E, T]):
    """An initiation of ours that may still be answered."""

    __slots__ = ("initiator", "local_index", "peer", "sent_at")

    def __init__(
        self, peer: "Peer[E, T]", initiator: Initiator, local_index: int, now: float
    ) -> None:
        self.peer = peer
        self.initiator = initiator
        self.local_index = local_index
        self.sent_at = now


class Handshakes(Generic[E, T]):
    """Belongs to one peer and uses its RETRANSMIT_HANDSHAKE timer, which runs while one is wanted.

    `attempts` are the initiations sent since a handshake was first wanted.
    """

    __slots__ = (
        "_context",
        "_credentials",
        "_is_anew",
        "_last_accepted_at",
        "_last_accepted_timestamp",
        "_last_sent_at",
        "_peer",
        "_pending",
        "_wanted_since",
        "attempts",
    )

    def __init__(
        self, peer: "Peer[E, T]", context: Context[E, T], credentials: Credentials
    ) -> None:
        self._peer = peer
        self._context = context
        self._credentials = credentials
        # Ours to them.
        self.attempts = 0
        self._pending: PendingInitiation[E, T] | None = None
        self._wanted_since = 0.0
        self._last_sent_at = -NEVER
        self._is_anew = False  # what was sent last does not count
        # Theirs to us.
        self._last_accepted_timestamp = b""
        self._last_accepted_at = -NEVER

    @property
    def is_wanted(self) -> bool:
        """Whether we are trying to get a session."""
        return self._peer.deadlines[Timer.RETRANSMIT_HANDSHAKE] != NEVER

    @property
    def pending(self) -> PendingInitiation[E, T] | None:
        """The initiation that may still be answered."""
        return self._pending

    # --- Ours ------------------------------------------------------------------------------------

    def want(self, now: float, *, fresh: bool) -> None:
        """See to it that a handshake is under way. `fresh` traffic gives it 90 s from now."""
        if self.is_wanted:
            if fresh:
                self._wanted_since = now
            return
        if self._peer.removed or self._credentials.is_low_order():
            return
        self.attempts = 0
        self._wanted_since = now
        if now < self._allowed_at():
            self._try_when_allowed()
        else:
            self._send_initiation(now)

    def retransmit(self, now: float) -> bool:
        """The timer ran out: try again. False when it is time to give up."""
        if now - self._wanted_since >= REKEY_ATTEMPT_TIME:
            return False
        if now < self._allowed_at():
            # We answered the peer meanwhile; what comes of that has its 5 s, too.
            self._try_when_allowed()
            return True
        if self._pending is not None:
            self._context.outputs.append(HandshakeUnanswered(self._peer, self.attempts))
            self._peer.renew_endpoint()
        self._send_initiation(now)
        return True

    def stop(self) -> None:
        """A session came about: no more is wanted."""
        self._context.timers.cancel(self._peer, Timer.RETRANSMIT_HANDSHAKE)
        self.forget()

    def forget(self) -> None:
        """Erase the initiation that may still be answered."""
        if self._pending is not None:
            del self._context.indices.handshakes[self._pending.local_index]
            self._pending = None

    def why_not(self) -> str:
        """Why no session came about, for people."""
        if self._context.private_key is None:
            return "the interface has no private key"
        if self._peer.endpoint is None:
            return "the peer's endpoint is not known"
        return "no answer" if self.attempts else "the clock is implausible"

    def handle_endpoint(self, now: float) -> None:
        """The peer's endpoint was set: if a handshake waited for that, start it."""
        if self.is_wanted and self._pending is None:
            self._try_at(max(now, self._allowed_at()))

    def handle_preshared_key(self) -> None:
        """The preshared key was set: it goes into what is under way as well."""
        if self._pending is not None:
            self._pending.initiator.preshared_key = self._credentials.preshared_key

    def begin_anew(self, now: float) -> None:
        """What was sent does not count, its answer cannot be taken: try again if one is wanted.

        Now, or ANEW_SPACING after what was sent: to the peer, which heard that, a flood else.
        """
        self.forget()
        self._is_anew = True
        if self.is_wanted:
            self._try_at(max(now, self._allowed_at()))

    def handle_down(self) -> None:
        """The interface went down: nothing is under way, and what follows is begun anew."""
        self.forget()
        self._is_anew = True

    def consume_response_untrusted(self, message: HandshakeResponse) -> TransportKeys | None:
        """The keys, if `message` answers the initiation that is pending; it no longer is then.

        Otherwise None. A forgery must not stand in the way of the true response: the initiation
        stays pending.
        """
        if self._pending is None:
            return None
        try:
            keys = self._pending.initiator.consume_response_untrusted(message)
        except HandshakeError:
            return None
        self.forget()
        return keys

    def _allowed_at(self) -> float:
        """No initiation goes out before this."""
        return self._last_sent_at + (ANEW_SPACING if self._is_anew else REKEY_TIMEOUT)

    def _try_when_allowed(self) -> None:
        # Anew there is no step that both sides could fall into.
        jitter = 0.0 if self._is_anew else self._context.jitter()
        self._try_at(self._allowed_at() + jitter)

    def _try_at(self, deadline: float) -> None:
        self._context.timers.arm(self._peer, Timer.RETRANSMIT_HANDSHAKE, deadline)

    def _send_initiation(self, now: float) -> None:
        """Send an initiation if that is possible now, and look again in 5 s in any case."""
        context = self._context
        endpoint = self._peer.endpoint
        self._peer.handle_key_change(now)
        self.forget()
        self._try_at(now + REKEY_TIMEOUT + context.jitter())
        if context.private_key is None or endpoint is None:
            return
        local_index = context.indices.draw()
        created = self._credentials.create_initiation(local_index, now)
        if created is None:
            return
        initiator, message = created
        self._pending = PendingInitiation(self._peer, initiator, local_index, now)
        context.indices.handshakes[local_index] = self._pending
        self.attempts += 1
        self._send(message.emit(), DatagramKind.INITIATION, endpoint, now)

    # --- Theirs ----------------------------------------------------------------------------------

    def refusal(self, responder: Responder, now: float) -> Drop | None:
        """Why an authentic initiation is not answered; None, and remembered, if it is to be."""
        if responder.timestamp <= self._last_accepted_timestamp:
            return Drop.OLD_TIMESTAMP
        if now - self._last_accepted_at < INITIATION_SPACING:
            return Drop.HANDSHAKE_FLOOD
        self._last_accepted_timestamp = responder.timestamp
        self._last_accepted_at = now
        return None

    def answer(
        self, responder: Responder, local_index: int, endpoint: E, now: float
    ) -> TransportKeys:
        """Send the response; the keys of the session that it offers."""
        response, keys = responder.create_response(
            ephemeral=self._credentials.draw_ephemeral(),
            sender=local_index,
            preshared_key=self._credentials.preshared_key,
        )
        self._send(response.emit(), DatagramKind.RESPONSE, endpoint, now)
        return keys

    def _send(self, message: bytes, kind: DatagramKind, endpoint: E, now: float) -> None:
        self._last_sent_at = now
        self._is_anew = False
        data = self._credentials.macs().add_macs(message, now)
        self._peer.handle_handshake_sent(now, len(data))
        self._context.outputs.append(Datagram(self._peer, endpoint, data, kind))
