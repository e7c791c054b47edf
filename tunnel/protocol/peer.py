"""One peer: its sessions, its timers, and the rules by which they change.

When to start, repeat and answer a handshake is worked out in `handshakes.py`; everything that
follows from one is in this file.

The rules, in words. Times are in `constants.py`, the triggers of the timers in `timers.py`.

*Sending.* Data goes out under the current session while that is younger than 180 s. Without one
it is staged, and a handshake is wanted.

*Starting.* A wanted handshake starts at once, but never within 5 s of the last handshake message
sent to this peer; then as soon as that time is over. It is repeated every 5 s, each time with new
keys, a new index and a later timestamp; only the last initiation can be answered. 90 s after the
last packet that asked for a session it is given up, and what was staged is dropped. The next
packet starts over. When the interface comes up or its key changes, what was sent does not count:
the next goes out at once, but not within 25 ms of the last, which the peer would take for a flood.

*Answering.* A valid initiation, newer than every one before it, is answered at once. The session
waits as *next*; it is used for receiving only, until the peer's first message under it arrives and
makes it *current*. Meanwhile the old current one serves. Both sides may start at the same moment:
each answers the other, and the one with the greater public key gives its own initiation up. If both
went on, each side could end up sending under a session that the other is about to forget.

*Completing.* A response is accepted once, for the initiation still open, and makes the session
current at once. Whatever was staged goes out under it, or an empty message if nothing was, because
the peer must not send before it has heard from us.

*Renewing.* Only the side that initiated a session asks for its successor by age: at 120 s when it
sends, at 165 s when it merely receives. Either side does so after 2^60 messages.

*Noticing loss.* Data sent and nothing heard for 15 s: a new handshake. Data heard and nothing sent
for 10 s: an empty message, which itself is never answered, so silence stays silent.

*Roaming.* Every authenticated message moves the peer to the address it came from, after the replay
check. A cookie reply authenticates nobody and moves nothing.

*Forgetting.* A session is gone when it is 180 s old, or when one more has come than there are
places. After 540 s without a new one, nothing secret but the static keys is left.
"""

from typing import Generic

from crypto.cookies import MacGenerator
from crypto.handshake import Responder, TransportKeys
from crypto.keys import PresharedKey, PublicKey
from crypto.messages import HandshakeResponse
from tunnel.protocol.driver import E, T
from tunnel.protocol.keypairs import Session, Sessions
from tunnel.protocol.peer_keys import Credentials

from .constants import (
    ERASE_AFTER_TIME,
    KEEPALIVE_TIMEOUT,
    NEW_HANDSHAKE_TIMEOUT,
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
)
from .context import Context
from .drops import Drop
from .events import (
    HandshakeCompleted,
    HandshakeFailed,
    KeysErased,
    PeerRoamed,
    SessionExpired,
)
from .handshakes import Handshakes, PendingInitiation
from .outputs import Seal
from .staging import Staged
from .timers import NEVER, Timed, Timer

# As plain integers, for the two methods that run with every batch.
_NEW_HANDSHAKE = int(Timer.NEW_HANDSHAKE)
_SEND_KEEPALIVE = int(Timer.SEND_KEEPALIVE)
_PERSISTENT_KEEPALIVE = int(Timer.PERSISTENT_KEEPALIVE)

_MAX_KEEPALIVE = 65_535


class Peer(Timed, Generic[E, T]):
    """A peer of an interface; made by `Interface.add_peer` alone.

    To read: the attributes in the first group of `__init__`. To change: the `set_` methods. The
    rest is called by the interface.
    """

    __slots__ = (
        "_context",
        "_credentials",
        "_handshakes",
        "_jitter",
        "_key_changes",
        "_refreshed_on_receive",
        "_removed",
        "_staged",
        "drops",
        "endpoint",
        "last_handshake",
        "last_handshake_unix_ns",
        "persistent_keepalive",
        "rx_bytes",
        "sessions",
        "tx_bytes",
    )

    def __init__(self, context: Context[E, T], public_key: PublicKey) -> None:
        super().__init__()
        self.endpoint: E | None = None
        self.persistent_keepalive = 0  # seconds, 0 is off
        self.last_handshake: float | None = None
        self.last_handshake_unix_ns = 0  # 0 is never
        self.tx_bytes = 0
        self.rx_bytes = 0
        self.drops: dict[Drop, int] = {}
        self.sessions: Sessions[E, T] = Sessions()

        self._context = context
        self._credentials = Credentials(context, public_key)
        self._handshakes: Handshakes[E, T] = Handshakes(self, context, self._credentials)
        self._staged = Staged(context)
        self._key_changes = context.key_changes
        self._removed = False
        self._refreshed_on_receive = False
        # Drawn once a session: drawing for every packet that arms a timer would cost too much.
        self._jitter = 0.0

    def __repr__(self) -> str:
        return f"<Peer {self.public_key.to_base64()}>"

    # --- Configuration ---------------------------------------------------------------------------

    @property
    def public_key(self) -> PublicKey:
        """The peer's name."""
        return self._credentials.public_key

    @property
    def preshared_key(self) -> PresharedKey:
        """Mixed into every handshake; all zero for none."""
        return self._credentials.preshared_key

    @property
    def removed(self) -> bool:
        """Whether the interface has dropped this peer; nothing happens to it any more."""
        return self._removed

    @property
    def staged_frames(self) -> int:
        """Frames waiting for a session."""
        return len(self._staged)

    def set_endpoint(self, endpoint: E | None, now: float | None = None) -> None:
        """Send to `endpoint` from now on, until the peer roams. Sessions go on.

        With `now`, a handshake that waited for an endpoint starts at once and not up to 5 s later.
        """
        self.endpoint = endpoint
        if now is not None and endpoint is not None:
            self._handshakes.handle_endpoint(now)

    def set_preshared_key(self, key: PresharedKey) -> None:
        """Mix `key` into every handshake that completes from now on. Sessions go on."""
        self._credentials.preshared_key = key
        self._handshakes.handle_preshared_key()

    def set_persistent_keepalive(self, seconds: int, now: float) -> None:
        """Send an empty message after `seconds` of silence (0 to 65535, 0 is off).

        Turning it on sends the first one at once. Raises ValueError outside the range.
        """
        if not 0 <= seconds <= _MAX_KEEPALIVE:
            raise ValueError(f"persistent keepalive is 0 to {_MAX_KEEPALIVE} seconds: {seconds}")
        before, self.persistent_keepalive = self.persistent_keepalive, seconds
        if not seconds:
            self._context.timers.cancel(self, Timer.PERSISTENT_KEEPALIVE)
        elif not before:
            self._context.timers.arm(self, Timer.PERSISTENT_KEEPALIVE, now)
        elif seconds != before:
            self._context.timers.arm(self, Timer.PERSISTENT_KEEPALIVE, now + seconds)

    @property
    def macs(self) -> MacGenerator:
        """Puts MACs on messages to this peer, and keeps its cookie."""
        return self._credentials.macs()

    def static_static(self) -> bytes | None:
        """Our static key with the peer's, or None if there is nothing to agree on."""
        return self._credentials.static_static()

    # --- Packets out -----------------------------------------------------------------------------

    def transport_for_sending(self, now: float) -> T | None:
        """The cipher of the current session while it may still send."""
        session = self.sessions.current
        if session is None or now >= session.send_until:
            return None
        transport = session.transport
        return transport if transport.send_counter < REJECT_AFTER_MESSAGES else None

    def stage(self, frame: bytes, now: float) -> None:
        """Keep `frame` until a session stands, and see to it that one is coming."""
        if self._removed:
            self.count(Drop.PEER_REMOVED)
            return
        if self._credentials.is_low_order():
            self.count(Drop.LOW_ORDER_PEER)
            return
        transport = self.transport_for_sending(now)
        if transport is not None:
            self._context.outputs.append(Seal(self, transport, (frame,)))
            return
        dropped = self._staged.push(frame)
        if dropped:
            self.count(Drop.STAGED_OVERFLOW, dropped)
        self._handshakes.want(now, fresh=True)

    def handle_sent(self, transport: T, now: float, wire_bytes: int, *, data: bool) -> None:
        """The driver sealed messages with `transport` and sent them."""
        if self._removed:
            return
        self.tx_bytes += wire_bytes
        deadlines = self.deadlines
        deadlines[_SEND_KEEPALIVE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)
        if data and deadlines[_NEW_HANDSHAKE] == NEVER:
            self._arm(_NEW_HANDSHAKE, now + NEW_HANDSHAKE_TIMEOUT + self._jitter)
        session = self.sessions.current
        if session is not None and (
            now >= session.refresh_on_send_at
            or session.transport.send_counter >= REKEY_AFTER_MESSAGES
        ):
            self._handshakes.want(now, fresh=data)

    # --- Packets in ------------------------------------------------------------------------------

    def handle_received(
        self,
        transport: T,
        endpoint: E,
        now: float,
        wire_bytes: int,
        *,
        data: bool,
    ) -> None:
        """The driver opened authentic, never seen messages with `transport`."""
        if self._removed:
            return
        self._heard(endpoint, now, wire_bytes)
        sessions = self.sessions
        coming = sessions.next
        if coming is not None and coming.transport is transport and not coming.is_superseded:
            self._confirm(coming, now)
        if data and self.deadlines[_SEND_KEEPALIVE] == NEVER:
            self._arm(_SEND_KEEPALIVE, now + KEEPALIVE_TIMEOUT)
        session = sessions.current
        if (
            session is not None
            and now >= session.refresh_on_receive_at
            and not self._refreshed_on_receive
        ):
            self._refreshed_on_receive = True
            self._handshakes.want(now, fresh=False)

    def accept_initiation(
        self, responder: Responder, endpoint: E, now: float, wire_bytes: int
    ) -> None:
        """An initiation that only this peer can have made; it may still be an old one."""
        self.handle_key_change(now)
        refusal = self._handshakes.refusal(responder, now)
        if refusal is not None:
            self.count(refusal)
            return
        self._heard(endpoint, now, wire_bytes)
        local_index = self._context.indices.draw()
        keys = self._handshakes.answer(responder, local_index, endpoint, now)
        session = self._session(keys, local_index, responder.remote_index, False, now)
        self._install(session, self.sessions.install_answered(session), now)
        if self._yields():
            self._handshakes.forget()

    def accept_response_untrusted(
        self,
        pending: PendingInitiation[E, T],
        message: HandshakeResponse,
        endpoint: E,
        now: float,
        wire_bytes: int,
    ) -> None:
        """Something that claims to answer `pending`. Counts and ignores it if it does not."""
        keys = self._handshakes.consume_response_untrusted(message)
        if keys is None:
            self.count(Drop.HANDSHAKE_INVALID)
            return
        self._heard(endpoint, now, wire_bytes)
        session = self._session(keys, pending.local_index, message.sender, True, now)
        self._install(session, self.sessions.install_initiated(session), now)
        self._complete(session, now, now - pending.sent_at)
        self._context.outputs.append(Seal(self, session.transport, self._staged.take()))

    # --- Time ------------------------------------------------------------------------------------

    def expire(self, timer: Timer, now: float) -> None:
        """Do what the timer is for (see `Timer`)."""
        match timer:
            case Timer.EXPIRE_SESSIONS:
                self._expire_sessions(now)
            case Timer.ERASE_KEYS:
                self._erase_keys()
            case Timer.RETRANSMIT_HANDSHAKE:
                if not self._handshakes.retransmit(now):
                    self._give_up(now)
            case Timer.NEW_HANDSHAKE:
                self.renew_endpoint()
                self._handshakes.want(now, fresh=False)
            case Timer.SEND_KEEPALIVE:
                self._send_keepalive(now)
            case Timer.PERSISTENT_KEEPALIVE:
                if self.persistent_keepalive:
                    # Sending moves it too; but without a session nothing is sent yet.
                    self._arm(timer, now + self.persistent_keepalive)
                    self._send_keepalive(now)

    def handle_down(self) -> None:
        """The interface went down: no session, no timer, until traffic or `handle_up`."""
        self._handshakes.handle_down()
        self._forget(self.sessions.clear())
        self._credentials.erase()
        self._drop_staged(Drop.INTERFACE_DOWN)
        for timer in Timer:
            self._context.timers.cancel(self, timer)

    def handle_up(self, now: float) -> None:
        """The interface came up: a peer that is to be kept alive is greeted at once.

        A handshake that began before we were told is begun anew: its answer was not heard.
        """
        self._handshakes.begin_anew(now)
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now)

    def handle_key_change(self, now: float) -> None:
        """Our private key is another one: nothing made with the old one may send any more.

        Does nothing when that is known already. It comes to thousands of peers one by one, and to
        one whose handshake cannot wait for its turn at once.
        """
        if self._key_changes == self._context.key_changes:
            return
        self._key_changes = self._context.key_changes
        self._credentials.handle_key_change()
        self._handshakes.begin_anew(now)
        # The peer may be about to confirm it, and nothing may be sent under it then.
        self._forget(self.sessions.drop_next())
        for session in self.sessions.standing():
            session.stop_sending()
        if self.persistent_keepalive:
            self._context.timers.arm(self, Timer.PERSISTENT_KEEPALIVE, now)

    def handle_removal(self) -> None:
        """The interface lets go of this peer."""
        self._removed = True
        self._handshakes.forget()
        self._forget(self.sessions.clear())
        self._drop_staged(Drop.PEER_REMOVED)
        self._context.timers.remove(self)
        self._credentials.handle_removal()

    def count(self, reason: Drop, packets: int = 1) -> None:
        """Count drops, for this peer and for the interface."""
        self.drops[reason] = self.drops.get(reason, 0) + packets
        self._context.count(reason, packets)

    # --- Sessions --------------------------------------------------------------------------------

    def _session(
        self,
        keys: TransportKeys,
        local_index: int,
        remote_index: int,
        is_initiator: bool,
        now: float,
    ) -> Session[E, T]:
        transport = self._context.make_transport(keys.send, keys.receive, local_index, remote_index)
        return Session(
            self,
            transport,
            local_index=local_index,
            remote_index=remote_index,
            is_initiator=is_initiator,
            now=now,
        )

    def _install(self, session: Session[E, T], gone: list[Session[E, T]], now: float) -> None:
        self._context.indices.sessions[session.local_index] = session
        self._forget(gone)
        self._jitter = self._context.jitter()
        self._context.timers.arm(self, Timer.ERASE_KEYS, now + ERASE_AFTER_TIME)

    def _confirm(self, session: Session[E, T], now: float) -> None:
        self._forget(self.sessions.confirm())
        self._complete(session, now, now - session.created)
        frames = self._staged.take()
        if frames:
            self._context.outputs.append(Seal(self, session.transport, frames))

    def _complete(self, session: Session[E, T], now: float, round_trip: float) -> None:
        """`session` is the current one, and both sides know its keys."""
        context = self._context
        self._handshakes.stop()
        self._refreshed_on_receive = False
        self.last_handshake = now
        self.last_handshake_unix_ns = context.clock.unix_ns()
        context.outputs.append(
            HandshakeCompleted(
                self, session.is_initiator, session.local_index, session.remote_index, round_trip
            )
        )

    def _expire_sessions(self, now: float) -> None:
        gone = self.sessions.expire(now)
        self._forget(gone)
        for session in gone:
            self._context.outputs.append(
                SessionExpired(self, session.local_index, session.remote_index)
            )

    def _erase_keys(self) -> None:
        self._forget(self.sessions.clear())
        # What is under way now is not old, and giving it up sets the timer again.
        if not self._handshakes.is_wanted:
            self._credentials.erase()
            self._context.outputs.append(KeysErased(self))

    def _forget(self, gone: list[Session[E, T]]) -> None:
        """Take sessions out of the index table, and wait for the next to go."""
        for session in gone:
            del self._context.indices.sessions[session.local_index]
        standing = self.sessions.standing()
        self._context.timers.arm(
            self,
            Timer.EXPIRE_SESSIONS,
            min((session.expires_at for session in standing), default=NEVER),
        )

    def _give_up(self, now: float) -> None:
        """Nobody answered for 90 s."""
        self._handshakes.forget()
        context = self._context
        context.timers.cancel(self, Timer.SEND_KEEPALIVE)
        if self.deadlines[Timer.ERASE_KEYS] == NEVER:
            context.timers.arm(self, Timer.ERASE_KEYS, now + ERASE_AFTER_TIME)
        dropped = self._drop_staged(Drop.HANDSHAKE_TIMEOUT)
        context.outputs.append(
            HandshakeFailed(self, self._handshakes.attempts, dropped, self._handshakes.why_not())
        )

    # --- Small things ----------------------------------------------------------------------------

    def handle_handshake_sent(self, now: float, wire_bytes: int) -> None:
        """A handshake message goes to the peer; it keeps the peer's path open like any other."""
        self.tx_bytes += wire_bytes
        self.deadlines[_SEND_KEEPALIVE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)

    def renew_endpoint(self) -> None:
        """The peer did not answer: try it another way, if the driver knows one."""
        if self.endpoint is not None:
            self.endpoint = self._context.retry_endpoint(self.endpoint)

    def _heard(self, endpoint: E, now: float, wire_bytes: int) -> None:
        """Something authentic came from `endpoint`."""
        if endpoint is not self.endpoint:
            self._roam(endpoint)
        self.rx_bytes += wire_bytes
        self.deadlines[_NEW_HANDSHAKE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)

    def _roam(self, endpoint: E) -> None:
        old, self.endpoint = self.endpoint, endpoint
        # Another local address of ours alone is no roaming.
        if old is None or old.port != endpoint.port or old.address != endpoint.address:
            self._context.outputs.append(PeerRoamed(self, old, endpoint))

    def _send_keepalive(self, now: float) -> None:
        transport = self.transport_for_sending(now)
        if transport is not None:
            self._context.outputs.append(Seal(self, transport, self._staged.take()))
        else:
            self._handshakes.want(now, fresh=False)

    def _yields(self) -> bool:
        """Of two handshakes that both sides started at once, the smaller public key's goes on."""
        own = self._context.public_key
        return own is not None and bytes(own) > bytes(self.public_key)

    def _drop_staged(self, reason: Drop) -> int:
        dropped = len(self._staged.take())
        if dropped:
            self.count(reason, dropped)
        return dropped

    def _arm(self, timer: int, deadline: float) -> None:
        """`TimerTable.arm`, cheap when the deadline only moves later."""
        self.deadlines[timer] = deadline
        if deadline < self.wake:
            self._context.timers.push(self, deadline)
