"""One peer: its keypairs, its timers, and the rules by which they change.

When to start and repeat a handshake, and which to answer, is decided in `handshakes.py`; it is
carried out here, with everything that follows from it.

The rules, in words. Times are in `constants.py`, the triggers of the timers in `timers.py`.

*Sending.* Data is sent under the current keypair while that is younger than 180 s. Without one it
is staged, and a handshake is wanted.

*Starting.* A wanted handshake starts at once, but never within 5 s of the last handshake message
sent to this peer; then as soon as that time is over. It is repeated every 5 s, each time with new
keys, a new index and a later timestamp; only the last initiation can be answered. 90 s after the
last packet that asked for a keypair it is given up, and what was staged is dropped. The next packet
starts again. When the interface comes up or its key changes, what was sent before does not count:
the next initiation is sent at once, but not within 25 ms of the last, which the peer would count as
a flood.

*Answering.* A valid initiation, newer than every one before it, is answered at once. The keypair
waits as *next*; it only receives until the peer's first message under it arrives and makes it
*current*. Until then the old current one stays in use.

*Crossing.* Both sides may start at the same moment, and each answer the other. An own initiation
stays open nevertheless: Linux and wireguard-go forget theirs when they answer ours, so ours may be
the only one that comes to an end. Between two of us both do. Then each side sends under the keypair
that it initiated, and the handshake of the smaller public key prevails: its owner keeps to it, and
the other side moves there with the first message under it. Nothing is weakened by two that are
alive: they come of different ephemeral keys on both sides, so they share no key and no nonce, and
each counts its messages for itself.

*Completing.* A response is accepted once, for the initiation still open, and makes the keypair
current at once. What was staged is sent under it, or an empty message if nothing was, because the
peer must not send before it has heard from us.

*Renewing.* Only the side that initiated a keypair asks for its successor by age: at 120 s when it
sends, at 165 s when it merely receives. Either side does so after 2^60 messages.

*Noticing loss.* Data sent and nothing received for 15 s: a new handshake. Data received and nothing
sent for 10 s: an empty message, which itself is never answered, so silence stays silent.

*Roaming.* Every authenticated message moves the peer to the address it came from, after the replay
check. A cookie reply does not authenticate its sender and moves nothing.

*Connected.* A peer is connected from the first session that both sides have confirmed until it has
none: when the last one is 180 s old, and when the interface goes down or the peer is removed. So a
peer that stays away is disconnected three minutes after its last handshake, and not before: until
then it may be silent for having nothing to say.

*Forgetting.* A keypair is erased when it is 180 s old, or when its slot is taken by another. After
540 s without a new one, nothing secret but the static keys is left.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Generic

from crypto.keys import PresharedKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse, TransportHeader

from .constants import (
    ERASE_AFTER_TIME,
    KEEPALIVE_TIMEOUT,
    NEW_HANDSHAKE_TIMEOUT,
    REKEY_AFTER_MESSAGES,
)
from .context import Context
from .driver import E, T
from .drops import ProtocolDrop
from .events import (
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    KeypairExpired,
    KeysErased,
    LocalAddressChanged,
    PeerConnected,
    PeerDisconnected,
    PeerRoamed,
    RoutingLoop,
)
from .handshakes import GiveUp, Handshakes, HandshakeStep, Initiate, RetryAt
from .index_table import PendingInitiation
from .keypairs import Keypair, Keypairs
from .outputs import Datagram, DatagramKind, Seal
from .peer_keys import PeerKeys
from .staging import Staged
from .timers import NEVER, Timed, Timer

# As plain integers, for the two methods that run with every batch.
_NEW_HANDSHAKE = int(Timer.NEW_HANDSHAKE)
_SEND_KEEPALIVE = int(Timer.SEND_KEEPALIVE)
_PERSISTENT_KEEPALIVE = int(Timer.PERSISTENT_KEEPALIVE)

_MAX_KEEPALIVE = 65_535

_NO_DROPS: Final[Mapping[ProtocolDrop, int]] = MappingProxyType({})
"""Of most peers: an empty dictionary of each would take 64 bytes."""


class Peer(Timed, Generic[E, T]):
    """A peer of an interface; made by `Interface.add_peer` alone.

    To read: the attributes in the first group of `__init__`. To change: the `set_` methods. The
    rest is called by the interface.

    Nothing that belongs to a peer points back at it once it is removed, so that it is freed at
    that moment and not by a later garbage collection.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_handshakes",
        "_jitter",
        "_key_changes",
        "_looped_at",
        "_staged",
        "drops",
        "endpoint",
        "is_connected",
        "keypairs",
        "keys",
        "last_handshake_unix_ns",
        "persistent_keepalive",
        "public_key",
        "removed",
        "rx_bytes",
        "tx_bytes",
    )

    def __init__(self, context: Context["Peer[E, T]", E, T], public_key: PublicKey) -> None:
        super().__init__()
        self.public_key = public_key
        self.endpoint: E | None = None
        self.persistent_keepalive = 0  # seconds, 0 is off
        self.last_handshake_unix_ns = 0  # 0 is never
        self.tx_bytes = 0
        self.rx_bytes = 0
        self.drops = _NO_DROPS
        self.is_connected = False
        self.removed = False  # once it is, nothing happens to this peer any more
        self.keypairs: Keypairs[Peer[E, T], T] = Keypairs(
            context.index_table.keypairs, context.handle_peer_change
        )
        self.keys = PeerKeys(context, public_key)

        self._context = context
        self._handshakes: Handshakes[Peer[E, T]] = Handshakes(
            context, context.index_table.handshakes
        )
        self._staged = Staged(context)
        self._key_changes = context.key_changes
        self._looped_at: tuple[bytes, int] | None = None  # the address and port last reported
        # Drawn once a keypair: drawing for every packet that arms a timer would cost too much.
        self._jitter = 0.0

    def __repr__(self) -> str:
        return f"<Peer {self.public_key.to_base64()}>"

    # --- Configuration ---------------------------------------------------------------------------

    @property
    def preshared_key(self) -> PresharedKey:
        """Mixed into every handshake; all zero for none."""
        return self.keys.preshared_key

    @property
    def staged_frames(self) -> int:
        """Frames waiting for a keypair."""
        return len(self._staged)

    def set_endpoint(self, endpoint: E | None, now: float | None = None) -> None:
        """Send to `endpoint` from now on, until the peer roams. Keypairs stay in use.

        With `now`, a handshake that waited for an endpoint starts at once and not up to 5 s later.
        """
        self._move(endpoint)
        if now is not None and endpoint is not None:
            self._carry_out(self._handshakes.handle_endpoint(now), now)

    def set_preshared_key(self, key: PresharedKey) -> None:
        """Mix `key` into every handshake that completes from now on. Keypairs stay in use."""
        self.keys.preshared_key = key

    def set_persistent_keepalive(self, seconds: int, now: float) -> None:
        """Send an empty message after `seconds` of silence (0 to 65535, 0 is off).

        Turning it on sends the first one at once. Raises ValueError outside the range.
        """
        if not 0 <= seconds <= _MAX_KEEPALIVE:
            raise ValueError(f"persistent keepalive is 0 to {_MAX_KEEPALIVE} seconds: {seconds}")
        before, self.persistent_keepalive = self.persistent_keepalive, seconds
        if not seconds:
            self.deadlines[_PERSISTENT_KEEPALIVE] = NEVER
        elif seconds != before:
            self._arm(_PERSISTENT_KEEPALIVE, now + seconds if before else now)

    def announce(self, now: float) -> None:
        """Let the peer see at once where we send from: an empty message, if there is a session."""
        transport = self.keypairs.transport_for_sending(now)
        if transport is not None and self.endpoint is not None and not self.removed:
            self._context.outputs.append(Seal(self, transport, ()))

    # --- What an earlier process left ------------------------------------------------------------

    @property
    def stamps(self) -> tuple[bytes, int]:
        """The timestamp of the peer's last initiation that was answered, empty if none was, and of
        our last one, in nanoseconds since 1970, 0 if there was none."""
        return self._handshakes.last_accepted_timestamp, self.keys.last_stamp_ns

    def restore_stamps(self, accepted: bytes, sent_ns: int) -> None:
        """Go on above these `stamps`: no initiation is taken twice, and ours are later."""
        self._handshakes.refuse_until(accepted)
        self.keys.last_stamp_ns = max(self.keys.last_stamp_ns, sent_ns)

    def restore_keypairs(
        self,
        previous: Keypair["Peer[E, T]", T] | None,
        current: Keypair["Peer[E, T]", T] | None,
        following: Keypair["Peer[E, T]", T] | None,
        now: float,
    ) -> None:
        """Go on with keypairs of an earlier process, as if there had been no pause.

        Only for a peer that has none. Data may have come that was not answered yet: what answers it
        at the latest, an empty message, is sent at once.
        """
        self.keypairs.restore(previous, current, following)
        self.is_connected = self._has_session
        newest = max((keypair.created for keypair in self.keypairs.all()), default=now)
        self._arm_expiry()
        self._jitter = self._context.jitter()
        self._arm(Timer.ERASE_KEYS, newest + ERASE_AFTER_TIME)
        if self.keypairs.transport_for_sending(now) is not None:
            self._arm(Timer.SEND_KEEPALIVE, now)

    # --- Packets out -----------------------------------------------------------------------------

    def stage(self, frame: bytes, now: float) -> None:
        """Keep `frame` until there is a keypair, and start a handshake if none is under way."""
        if self.removed:
            self.count(ProtocolDrop.PEER_REMOVED)
            return
        if self.keys.is_low_order():
            self.count(ProtocolDrop.LOW_ORDER_PEER)
            return
        transport = self.keypairs.transport_for_sending(now)
        if transport is not None:
            self._context.outputs.append(Seal(self, transport, (frame,)))
            return
        dropped = self._staged.push(frame)
        if dropped:
            self.count(ProtocolDrop.STAGED_OVERFLOW, dropped)
        self._want_handshake(now, fresh=True)

    def handle_sent(self, now: float, wire_bytes: int, *, data: bool) -> None:
        """The driver sealed messages under the current keypair and sent them."""
        if self.removed:
            return
        self.tx_bytes += wire_bytes
        deadlines = self.deadlines
        deadlines[_SEND_KEEPALIVE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)
        if data and deadlines[_NEW_HANDSHAKE] == NEVER:
            self._arm(_NEW_HANDSHAKE, now + NEW_HANDSHAKE_TIMEOUT + self._jitter)
        keypair = self.keypairs.current
        if keypair is not None and (
            now >= keypair.refresh_on_send_at
            or keypair.transport.send_counter >= REKEY_AFTER_MESSAGES
        ):
            self._want_handshake(now, fresh=data)

    def has_sent(self, kind: int, index: int) -> bool:
        """Whether a message of type `kind` that begins with `index` is one of ours to this peer.

        Data begins with the peer's index, an initiation and a response with ours.
        """
        if kind == TransportHeader.TYPE:
            return any(keypair.remote_index == index for keypair in self.keypairs.all())
        pending = self._handshakes.pending
        if kind == HandshakeInitiation.TYPE:
            return pending is not None and pending.local_index == index
        return kind == HandshakeResponse.TYPE and any(
            keypair.local_index == index for keypair in self.keypairs.all()
        )

    def handle_loop(self, endpoint: E, packets: int) -> None:
        """What was sent to `endpoint` came back out of the tunnel's own interface."""
        self.count(ProtocolDrop.ROUTING_LOOP, packets)
        place = endpoint.address, endpoint.port
        if self._looped_at != place:
            self._looped_at = place
            self._context.outputs.append(RoutingLoop(self.public_key, endpoint))

    # --- Packets in ------------------------------------------------------------------------------

    def handle_received(
        self, transport: T, endpoint: E, now: float, wire_bytes: int, *, data: bool
    ) -> None:
        """The driver opened authentic, never seen messages with `transport`."""
        if self.removed:
            return
        self._note_authentic(endpoint, now, wire_bytes)
        keypairs = self.keypairs
        waiting = keypairs.next
        if waiting is not None and waiting.transport is transport and not waiting.is_superseded:
            self._confirm(waiting, now)
        if data and self.deadlines[_SEND_KEEPALIVE] == NEVER:
            self._arm(_SEND_KEEPALIVE, now + KEEPALIVE_TIMEOUT)
        keypair = keypairs.current
        if keypair is not None and now >= keypair.refresh_on_receive_at:
            keypair.refresh_on_receive_at = NEVER  # one handshake, however much is received
            self._want_handshake(now, fresh=False)

    def accept_initiation(self, timestamp: bytes, endpoint: E, now: float, wire_bytes: int) -> bool:
        """An initiation that only this peer can have made; it may still be an old one.

        Whether it is to be answered, and then `send_response` follows, unless meanwhile the peer
        was removed or got another preshared key, or a later one came.
        """
        self.handle_key_change(now)
        refusal = self._handshakes.refusal(timestamp, now)
        if refusal is not None:
            self.count(refusal)
            if refusal is ProtocolDrop.OLD_TIMESTAMP:
                self._context.report_refusal(refusal, endpoint, self.public_key, now)
            return False
        self._note_authentic(endpoint, now, wire_bytes)
        return True

    def send_response(
        self,
        response: bytes,
        keys: tuple[bytes, bytes],
        indices: tuple[int, int],
        endpoint: E,
        now: float,
    ) -> None:
        """Answer with `response`, which has no MACs yet. It offers `keys`, to send and to receive
        with, under our index and the peer's."""
        self._send_handshake(response, DatagramKind.RESPONSE, endpoint, now)
        keypair = self._keypair(keys, *indices, now, is_initiator=False)
        self.keypairs.install_answered(keypair)
        self._handle_installed(now)
        # An own initiation stays open: the peer's answer to it may be under way already, and the
        # peer may have forgotten the initiation that was just answered.

    def accept_response_untrusted(
        self,
        pending: PendingInitiation["Peer[E, T]"],
        message: bytes,
        endpoint: E,
        now: float,
    ) -> None:
        """A response that claims to answer `pending`. Counts and ignores it if it does not."""
        keys = self._handshakes.consume_response_untrusted(message, self.preshared_key)
        if keys is None:
            self.count(ProtocolDrop.HANDSHAKE_INVALID)
            return
        self._note_authentic(endpoint, now, len(message))
        local_index, remote_index = pending.local_index, int.from_bytes(message[4:8], "little")
        keypair = self._keypair(keys, local_index, remote_index, now, is_initiator=True)
        self.keypairs.install_initiated(keypair, keep_next=self._yields(pending))
        self._handle_installed(now)
        self._complete(keypair, now, now - pending.sent_at)
        self._context.outputs.append(Seal(self, keypair.transport, self._staged.take()))

    # --- Time and change -------------------------------------------------------------------------

    def expire(self, timer: Timer, now: float) -> None:
        """Do what the timer is for (see `Timer`)."""
        match timer:
            case Timer.EXPIRE_KEYPAIRS:
                for keypair in self.keypairs.expire(now):
                    self._context.outputs.append(
                        KeypairExpired(self.public_key, keypair.local_index, keypair.remote_index)
                    )
                self._arm_expiry()
                self._note_disconnected("no handshake for 180 s")
            case Timer.ERASE_KEYS:
                self.keypairs.clear()
                self._arm_expiry()
                # A handshake under way is not old, and giving it up sets the timer again.
                if not self._handshakes.is_wanted:
                    self.keys.erase()
                    self._context.outputs.append(KeysErased(self.public_key))
            case Timer.RETRANSMIT_HANDSHAKE:
                self._carry_out(self._handshakes.retransmit(now), now)
            case Timer.NEW_HANDSHAKE:
                self._renew_endpoint()
                self._want_handshake(now, fresh=False)
            case Timer.SEND_KEEPALIVE:
                self._send_keepalive(now)
            case Timer.PERSISTENT_KEEPALIVE:
                if self.persistent_keepalive:
                    # Sending moves it too; but without a keypair nothing is sent yet.
                    self._arm(timer, now + self.persistent_keepalive)
                    self._send_keepalive(now)

    def handle_down(self) -> None:
        """The interface went down: no keypair, no timer, until traffic or `handle_up`."""
        self._handshakes.handle_down()
        self.keypairs.clear()
        self._note_disconnected("the interface went down")
        self.keys.erase()
        self._drop_staged(ProtocolDrop.INTERFACE_DOWN)
        self.deadlines[:] = [NEVER] * len(Timer)

    def handle_up(self, now: float) -> None:
        """The interface came up: a peer with a persistent keepalive is sent one at once.

        A handshake that began before this call starts over: its answer was not received.
        """
        self._carry_out(self._handshakes.start_over(now), now)
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
        self.keys.handle_key_change()
        self._carry_out(self._handshakes.start_over(now), now)
        # The peer may be about to confirm it, and nothing may be sent under it then.
        self.keypairs.drop_next()
        self._arm_expiry()
        for keypair in self.keypairs.all():
            keypair.stop_sending()
        self._context.handle_peer_change(self)
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now)

    def handle_removal(self) -> None:
        """The interface drops this peer."""
        self._context.move(self, self.endpoint, None)
        self.removed = True
        self._handshakes.stop()
        self.keypairs.clear()
        self._note_disconnected("the peer was removed")
        self._context.handle_peer_change(self)
        self._drop_staged(ProtocolDrop.PEER_REMOVED)
        self._context.timers.remove(self)
        self.keys.handle_removal()

    def count(self, reason: ProtocolDrop, packets: int = 1) -> None:
        """Count drops, for this peer and for the interface."""
        self.drops = {**self.drops, reason: self.drops.get(reason, 0) + packets}
        self._context.count(reason, packets)

    # --- Handshakes ------------------------------------------------------------------------------

    def _want_handshake(self, now: float, *, fresh: bool) -> None:
        if not self.keys.is_low_order():
            self._carry_out(self._handshakes.want(now, fresh=fresh), now)

    def _carry_out(self, step: HandshakeStep, now: float) -> None:
        match step:
            case Initiate():
                self._initiate(now)
            case RetryAt(when):
                self._arm(Timer.RETRANSMIT_HANDSHAKE, when)
            case GiveUp():
                self._give_up(now)

    def _initiate(self, now: float) -> None:
        """Send an initiation if that is possible now, and look again in 5 s in any case."""
        context, handshakes = self._context, self._handshakes
        if handshakes.pending is not None:
            context.outputs.append(
                HandshakeUnanswered(self.public_key, self.endpoint, handshakes.attempts)
            )
            self._renew_endpoint()
        self.handle_key_change(now)
        self._carry_out(handshakes.handle_initiated(now), now)
        identity, endpoint = context.identity, self.endpoint
        if identity is None or endpoint is None:
            return
        local_index = context.index_table.draw()
        stamp_ns = context.stamp(self.keys.last_stamp_ns, now)
        if stamp_ns is None:
            return
        message, awaited = self.keys.create_initiation(identity, local_index, stamp_ns)
        handshakes.expect_response(PendingInitiation(self, awaited, local_index, now))
        self._send_handshake(message, DatagramKind.INITIATION, endpoint, now)

    def _send_handshake(self, message: bytes, kind: DatagramKind, endpoint: E, now: float) -> None:
        self._handshakes.handle_sent(now)
        data = self.keys.macs().add_macs(message, now)
        self.tx_bytes += len(data)
        # Like any other message it keeps the path to the peer open.
        self.deadlines[_SEND_KEEPALIVE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)
        self._context.outputs.append(Datagram(self, endpoint, data, kind))

    def _give_up(self, now: float) -> None:
        """No answer for 90 s."""
        context = self._context
        self.deadlines[_SEND_KEEPALIVE] = NEVER
        if self.deadlines[Timer.ERASE_KEYS] == NEVER:
            self._arm(Timer.ERASE_KEYS, now + ERASE_AFTER_TIME)
        dropped = self._drop_staged(ProtocolDrop.HANDSHAKE_TIMEOUT)
        attempts = self._handshakes.attempts
        reason = self._handshakes.failure(has_endpoint=self.endpoint is not None)
        context.outputs.append(
            HandshakeFailed(self.public_key, self.endpoint, attempts, dropped, reason)
        )

    # --- Keypairs --------------------------------------------------------------------------------

    def _keypair(
        self, keys: tuple[bytes, bytes], local: int, remote: int, now: float, *, is_initiator: bool
    ) -> Keypair["Peer[E, T]", T]:
        transport = self._context.make_transport(*keys, local, remote)
        return Keypair(self, transport, local, remote, now, is_initiator=is_initiator)

    def _handle_installed(self, now: float) -> None:
        self._arm_expiry()
        self._jitter = self._context.jitter()
        self._arm(Timer.ERASE_KEYS, now + ERASE_AFTER_TIME)

    def _confirm(self, keypair: Keypair["Peer[E, T]", T], now: float) -> None:
        self.keypairs.confirm()
        self._arm_expiry()
        self._complete(keypair, now, now - keypair.created)
        frames = self._staged.take()
        if frames:
            self._context.outputs.append(Seal(self, keypair.transport, frames))

    def _complete(self, keypair: Keypair["Peer[E, T]", T], now: float, round_trip: float) -> None:
        """`keypair` is the current one, and both sides know its keys."""
        context = self._context
        self._handshakes.stop()
        self.deadlines[Timer.RETRANSMIT_HANDSHAKE] = NEVER
        self._looped_at = None
        self.last_handshake_unix_ns = context.clock.unix_ns()
        context.outputs.append(
            HandshakeCompleted(
                self.public_key,
                self.endpoint,
                keypair.is_initiator,
                keypair.local_index,
                keypair.remote_index,
                round_trip,
            )
        )
        if not self.is_connected:
            self.is_connected = True
            context.outputs.append(
                PeerConnected(self.public_key, self.endpoint, self.rx_bytes, self.tx_bytes)
            )

    @property
    def _has_session(self) -> bool:
        """Whether there is a keypair that both sides have confirmed."""
        return self.keypairs.current is not None or self.keypairs.previous is not None

    def _note_disconnected(self, reason: str) -> None:
        if self.is_connected and not self._has_session:
            self.is_connected = False
            self._context.outputs.append(
                PeerDisconnected(
                    self.public_key, self.endpoint, reason, self.rx_bytes, self.tx_bytes
                )
            )

    def _yields(self, pending: PendingInitiation["Peer[E, T]"]) -> bool:
        """Whether the keypair that waits as *next* prevails over the one `pending` leads to.

        It does if the initiations crossed and the peer's public key is the smaller one. An older
        one never does: the peer had our answer before it answered us.
        """
        own, waiting = self._context.public_key, self.keypairs.next
        crossed = waiting is not None and waiting.created >= pending.sent_at
        return crossed and own is not None and bytes(own) > bytes(self.public_key)

    def _arm_expiry(self) -> None:
        self._arm(Timer.EXPIRE_KEYPAIRS, self.keypairs.next_expiry())

    # --- Small things ----------------------------------------------------------------------------

    def _note_authentic(self, endpoint: E, now: float, wire_bytes: int) -> None:
        """Something authentic came from `endpoint`."""
        old = self.endpoint
        if endpoint is not old:
            self._move(endpoint)
            if old is None or old.port != endpoint.port or old.address != endpoint.address:
                self._context.outputs.append(PeerRoamed(self.public_key, old, endpoint))
            elif old != endpoint:
                self._context.outputs.append(LocalAddressChanged(self.public_key))
        self.rx_bytes += wire_bytes
        self.deadlines[_NEW_HANDSHAKE] = NEVER
        if self.persistent_keepalive:
            self._arm(_PERSISTENT_KEEPALIVE, now + self.persistent_keepalive)

    def _renew_endpoint(self) -> None:
        """The peer did not answer: try it another way, if the driver knows one."""
        if self.endpoint is not None:
            self._move(self._context.retry_endpoint(self.endpoint))

    def _move(self, endpoint: E | None) -> None:
        if not self.removed:
            self._context.move(self, self.endpoint, endpoint)
            self.endpoint = endpoint
            self._context.handle_peer_change(self)

    def _send_keepalive(self, now: float) -> None:
        transport = self.keypairs.transport_for_sending(now)
        if transport is not None:
            self._context.outputs.append(Seal(self, transport, self._staged.take()))
        else:
            self._want_handshake(now, fresh=False)

    def _drop_staged(self, reason: ProtocolDrop) -> int:
        dropped = len(self._staged.take())
        if dropped:
            self.count(reason, dropped)
        return dropped

    def _arm(self, timer: int, deadline: float) -> None:
        """Set or move a timer to `deadline`."""
        self.deadlines[timer] = deadline
        if deadline < self.wake:
            self._context.timers.push(self, deadline)
