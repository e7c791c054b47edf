"""The WireGuard machine of one interface: all peers, the index table, demultiplexing, under-load.

It never reads a clock, a socket or a random source: the driver brings datagrams and the time, and
carries out what comes back. See `Interface` for the order of calls, `peer.py` for the rules.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Generic

from crypto.cookies import MacChecker, MacError, source_bytes
from crypto.errors import CookieError
from crypto.identity import Identity
from crypto.keys import PrivateKey, PublicKey
from crypto.messages import CookieReply, HandshakeInitiation, HandshakeResponse
from tunnel.errors import TunnelError

from .allowed_ips import AllowedIPs
from .clock import HandshakeClock
from .constants import MAX_PEERS_PER_DEADLINE, UNDER_LOAD_TIME
from .context import Context, Output
from .cookie_replies import CookieReplies
from .driver import (
    E,
    MakeIdentity,
    MakeTransport,
    OnEphemeral,
    Random,
    RetryEndpoint,
    T,
    UnixTime,
)
from .drops import ProtocolDrop
from .events import PeerRemoved
from .index_table import IndexTable
from .outputs import Datagram, DatagramKind
from .peer import Peer
from .rate_limiter import RateLimiter
from .timers import Timer

_PORT_LENGTH: Final = 2
"""Bytes of the port, with which `source_bytes` ends."""

_FORMS: Final = {
    message.TYPE.to_bytes(4, "little"): message.LENGTH
    for message in (HandshakeInitiation, HandshakeResponse, CookieReply)
}
"""How long a message is that begins with these four bytes: its type, and three that are zero."""


class PeerError(TunnelError):
    """A peer that cannot be added: it is one already, or its key is our own."""

    code = "peer"


def _same(endpoint: E) -> E:
    return endpoint


def take_step(steps: Generator[int, float, None], now: float) -> int:
    """Take the next of `Interface.initiation_steps`. Returns how many initiations the steps after
    it are for: 0 if it was the last one.
    """
    try:
        return steps.send(now)
    except StopIteration:
        return 0


class Interface(Generic[E, T]):
    """All peers of one tunnel, and what they ask of the driver.

    `random(n)` gives n unpredictable bytes, `unix_time_ns()` the wall clock, `make_transport` the
    cipher of a new keypair, `make_identity` the handshakes of a private key (None: those of
    `crypto`), `retry_endpoint` the endpoint to try after one that did not answer.
    `now` is seconds of a clock that never goes back and runs on in suspend.

    The driver, in a loop:

    1. Something happened: a packet to send, a datagram, a deadline, a change of configuration.
       - *packets to send*: `peer_for_destination`, then `transport_for_sending` of the peer's
         `keypairs`; seal and send, and `Peer.handle_sent`. Without a transport: `Peer.stage`.
       - *datagrams of type 4*: `transport_for_receiving` with the receiver index, open, drop
         replays, `source_allowed` for every packet, and `Peer.handle_received`.
       - *any other datagram*: `handle_message_untrusted`.
       - *the deadline*: `handle_deadline`.
    2. `poll_output` until it gives None, and do what each output asks for.
    3. Sleep until `next_deadline` at the latest. It may be over already when very many timers were
       due at once: then move waiting packets first, and come back.

    `transport_for_sending`, `transport_for_receiving`, `Peer.handle_sent` and
    `Peer.handle_received` are meant to be called once per batch, and take well under a microsecond
    each.
    """

    def __init__(
        self,
        *,
        random: Random,
        unix_time_ns: UnixTime,
        make_transport: MakeTransport[T],
        make_identity: MakeIdentity | None = None,
        retry_endpoint: RetryEndpoint[E] = _same,
    ) -> None:
        self._context: Context[Peer[E, T], E, T] = Context(
            random=random,
            clock=HandshakeClock(unix_time_ns),
            make_transport=make_transport,
            retry_endpoint=retry_endpoint,
            index_table=IndexTable(random),
        )
        self._peers: dict[PublicKey, Peer[E, T]] = {}
        self._make_identity = make_identity or Identity
        self._checker: MacChecker | None = None
        self._limiter = RateLimiter()
        self._cookie_replies = CookieReplies()
        self._under_load_until = float("-inf")
        self._keypairs = self._context.index_table.keypairs
        self.peers: Mapping[PublicKey, Peer[E, T]] = MappingProxyType(self._peers)
        self.allowed_ips: AllowedIPs[Peer[E, T]] = AllowedIPs(self._context.handle_address_change)
        self.peer_for_destination: Callable[[bytes], Peer[E, T] | None] = self.allowed_ips.lookup
        """The peer a packet to this address (4 or 16 bytes) goes to, or None."""
        self.peers_at: Mapping[bytes, Collection[Peer[E, T]]] = MappingProxyType(
            self._context.peers_at
        )
        """The peers whose endpoint has this address (4 or 16 bytes)."""
        self.next_deadline: Callable[[], float | None] = self._context.timers.next_deadline
        """When to call `handle_deadline` next, or None. Early calls do no harm."""

    # --- Configuration ---------------------------------------------------------------------------

    @property
    def private_key(self) -> PrivateKey | None:
        """Our key; None until it is set."""
        return self._context.private_key

    @property
    def public_key(self) -> PublicKey | None:
        """The public half of our key."""
        return self._context.public_key

    @property
    def mac1_key(self) -> bytes | None:
        """The key of mac1 in messages to us (32 bytes); None without a private key."""
        return None if self._checker is None else self._checker.mac1_key

    @property
    def drops(self) -> Mapping[ProtocolDrop, int]:
        """Packets dropped, by reason, since the start; those of single peers included."""
        return self._context.drops

    def set_on_ephemeral(self, listener: OnEphemeral | None) -> None:
        """Call `listener` with every ephemeral key from now on, before its message is sent."""
        self._context.on_ephemeral = listener

    def add_on_change(
        self,
        on_peer: Callable[[Peer[E, T]], None],
        on_address: Callable[[], None] = lambda: None,
    ) -> None:
        """From now on say when something is not true any more that a driver may remember.

        `on_peer` is called when a peer has other keypairs, or may not send under them any more, or
        has another endpoint; `on_address` when an address belongs to another peer, whether as an
        allowed IP or as an endpoint. Neither may call the interface back.
        """
        self._context.on_peer_change += (on_peer,)
        self._context.on_address_change += (on_address,)

    def set_private_key(self, key: PrivateKey | None, now: float) -> None:
        """Use `key` from now on. The same key again changes nothing.

        Keypairs made with the old key stop sending and new handshakes start on traffic. A peer
        whose public key is now our own is removed, with a PeerRemoved event.
        """
        for _ in self.private_key_steps(key, now):
            pass

    def private_key_steps(self, key: PrivateKey | None, now: float) -> Iterator[None]:
        """`set_private_key` in steps of some microseconds, all of which must be taken.

        From the first step on every handshake uses the new key. A keypair made with the old key
        goes on sending until its peer's turn comes.
        """
        if key == self._context.private_key:
            return
        self._context.private_key = key
        self._context.key_changes += 1
        if key is None:
            self._context.public_key = self._context.identity = self._checker = None
        else:
            public_key = self._context.public_key = key.public_key()
            self._context.identity = self._make_identity(bytes(key))
            self._checker = MacChecker(public_key, random=self._context.random)
            self._remove_peer(public_key, own_key=True)
        for peer in list(self._peers.values()):
            yield
            if not peer.removed:
                peer.handle_key_change(now)

    def add_peer(self, public_key: PublicKey) -> Peer[E, T]:
        """Add a peer with nothing set but its key.

        Raises PeerError if it is a peer already, or if the key is our own.
        """
        if public_key == self._context.public_key:
            raise PeerError(f"{public_key.to_base64()} is this interface's own public key")
        if public_key in self._peers:
            raise PeerError(f"{public_key.to_base64()} is a peer already")
        peer = self._peers[public_key] = Peer(self._context, public_key)
        return peer

    def remove_peer(self, public_key: PublicKey) -> bool:
        """Remove a peer with all it has, with a PeerRemoved event; False if it was none."""
        return self._remove_peer(public_key, own_key=False)

    def _remove_peer(self, public_key: PublicKey, *, own_key: bool) -> bool:
        peer = self._peers.pop(public_key, None)
        if peer is None:
            return False
        self.allowed_ips.remove_peer(peer)
        peer.handle_removal()
        self._context.outputs.append(PeerRemoved(public_key, own_key))
        return True

    def prepare(self, most: int) -> bool:
        """Compute for at most `most` peers what no handshake changes, before the first needs it.

        Returns whether others may be left.
        """
        identity = self._context.identity
        return identity is not None and identity.prepare(most)

    def handle_down(self) -> None:
        """The interface went down: erase keypairs and staged packets, stop all timers.

        Datagrams are no longer to be handed in. Peers, addresses and counters stay.
        """
        for peer in self._peers.values():
            peer.handle_down()

    def handle_up(self, now: float) -> None:
        """The interface came up again: send to the peers with a persistent keepalive at once."""
        for peer in self._peers.values():
            peer.handle_up(now)

    # --- Datagrams in ----------------------------------------------------------------------------

    def transport_for_receiving(
        self, index: int, now: float, packets: int = 1
    ) -> tuple[Peer[E, T], T] | None:
        """The peer whose keypair `index` is, and its cipher; None, with `packets` counted as drops,
        if it is none or too old."""
        keypair = self._keypairs.get(index)
        if keypair is None:
            self._context.count(ProtocolDrop.UNKNOWN_SESSION, packets)
            return None
        if now >= keypair.expires_at:
            keypair.receiver[0].count(ProtocolDrop.SESSION_EXPIRED, packets)
            return None
        return keypair.receiver

    def source_allowed(self, peer: Peer[E, T], address: bytes) -> bool:
        """Whether a packet of `peer` may come from `address`: its longest match is this peer.

        The caller counts the drop (`peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)`).
        """
        return self.allowed_ips.lookup(address) is peer

    def screen_untrusted(
        self, datagram: bytes, *, mac1_is_right: bool, alike: int = 1
    ) -> ProtocolDrop | None:
        """None if a datagram is worth its turn in `handle_message_untrusted`; else why it is not,
        and counted.

        `alike` is how many there are of its type with a wrong mac1, itself included: all of them
        are counted if it is not worth its turn.

        For a driver that lets messages wait: nothing here takes more than a microsecond. It has
        compared mac1, with `mac1_key`, in whole batches; `mac1_is_right` is what came of it. While
        `is_under_load`, of messages with a MAC those alone should wait that `admit_proven`, for
        they are few; the others are answered by a cookie, or not, where `may_send_cookie` says so.
        """
        reason = self._flaw_untrusted(datagram, mac1_is_right)
        if reason is not None:
            self._context.count(reason, alike)
        return reason

    def is_refusal_news(self, reason: ProtocolDrop, now: float) -> bool:
        """Whether `report_refusal` would report one for `reason`."""
        return self._context.is_refusal_news(reason, now)

    def report_refusal(self, reason: ProtocolDrop, endpoint: E, now: float) -> None:
        """Have the sender of a datagram that `screen_untrusted` refused among the events."""
        self._context.report_refusal(reason, endpoint, None, now)

    def _flaw_untrusted(self, datagram: bytes, mac1_is_right: bool) -> ProtocolDrop | None:
        if _FORMS.get(datagram[:4]) != len(datagram):
            return ProtocolDrop.MALFORMED
        if self._checker is None:
            return ProtocolDrop.NO_PRIVATE_KEY
        kind, pending = datagram[0], self._context.index_table.handshakes
        if kind == CookieReply.TYPE:
            receiver = int.from_bytes(datagram[4:8], "little")
            if receiver not in pending and receiver not in self._keypairs:
                return ProtocolDrop.UNKNOWN_HANDSHAKE
            return None
        if not mac1_is_right:
            return ProtocolDrop.BAD_MAC1
        if kind == HandshakeResponse.TYPE:
            receiver = int.from_bytes(datagram[8:12], "little")
            return None if receiver in pending else ProtocolDrop.UNKNOWN_HANDSHAKE
        return None

    def cookie_of(self, source: bytes, now: float) -> bytes | None:
        """The key of mac2 (16 bytes) in messages from `source`, as `source_bytes` spells it; None
        if no cookie of ours is valid."""
        return None if self._checker is None else self._checker.cookie_of(source, now)

    def may_send_cookie(self, source: bytes, now: float) -> bool:
        """Whether a message from `source` without a valid mac2 would be answered by a cookie.

        If not, the driver need not look at it, and counts it as COOKIE_UNANSWERED.
        """
        known = source[:-_PORT_LENGTH] in self._context.peers_at
        return self._cookie_replies.may_send(source, now, known=known)

    def may_send_cookies(self, now: float) -> bool:
        """Whether there is any source for which `may_send_cookie` would be True."""
        return self._cookie_replies.has_room(now)

    def admit_proven(self, source: bytes, now: float) -> bool:
        """Whether a message from `source` with a valid mac2 is within the rate of its address;
        counts the drop if not."""
        admitted = self._limiter.allow(source[:-_PORT_LENGTH], now)
        if not admitted:
            self._context.count(ProtocolDrop.RATE_LIMITED)
        return admitted

    def handle_message_untrusted(
        self,
        datagram: bytes | bytearray | memoryview,
        endpoint: E,
        now: float,
        *,
        admitted: bool = False,
    ) -> None:
        """Take a whole datagram that is not a transport message. Never raises.

        What is wrong with it is counted in `drops` and not answered. `admitted` says that it passed
        `admit_proven`, so that load does not matter to it.
        """
        data = bytes(datagram)
        if _FORMS.get(data[:4]) != len(data):
            self._context.count(ProtocolDrop.MALFORMED)
        elif data[0] == HandshakeInitiation.TYPE:
            steps = self.initiation_steps([(data, endpoint, admitted, None)])
            while take_step(steps, now):
                pass
        elif data[0] == HandshakeResponse.TYPE:
            self._handle_response_untrusted(data, endpoint, now, admitted=admitted)
        else:
            self._handle_cookie_reply_untrusted(CookieReply.parse_untrusted(data), now)

    def initiation_steps(
        self, messages: Iterable[tuple[bytes, E, bool, bytes | None]]
    ) -> Generator[int, float, None]:
        """Take many initiations as `handle_message_untrusted` takes one, by `take_step`: each a
        datagram that `screen_untrusted` found to be one, where it came from, whether it was
        `admitted`, and the key by which its mac1 was found right, or None.

        They cost less together: opened in one call, and answered in another. Between two steps the
        `StaticIdentity` may be at work on them, and the driver may do anything else. Initiations
        that are then no longer to be answered are counted as drops.
        """
        steps = self._initiation_steps_untrusted(messages)
        next(steps)
        return steps

    def _initiation_steps_untrusted(
        self, messages: Iterable[tuple[bytes, E, bool, bytes | None]]
    ) -> Generator[int, float, None]:
        now = yield 0
        identity = self._context.identity
        worth = [
            (data, endpoint)
            for data, endpoint, admitted, mac1_key in messages
            if self._admit_untrusted(data, endpoint, now, admitted=admitted, mac1_key=mac1_key)
        ]
        if identity is None or not worth:
            return
        received = identity.consume_initiations([data for data, _ in worth])
        now = yield len(worth)
        if identity is not self._context.identity:
            self._context.count(ProtocolDrop.BAD_MAC1, len(worth))
            return
        requests: list[tuple[int, bytes, int, bytes]] = []
        answered: dict[int, tuple[Peer[E, T], bytes, bytes, int, E]] = {}
        for place, (sender, (data, endpoint)) in enumerate(
            zip(received.senders, worth, strict=True)
        ):
            if sender is None:
                self._context.count(ProtocolDrop.HANDSHAKE_INVALID)
                continue
            public_key, remote_index, timestamp = PublicKey(sender[0]), sender[1], sender[2]
            peer = self._peers.get(public_key)
            if peer is None:
                reason = ProtocolDrop.UNKNOWN_PEER
                self._context.count(reason)
                self._context.report_refusal(reason, endpoint, public_key, now)
            elif peer.accept_initiation(timestamp, endpoint, now, len(data)):
                local_index = self._context.index_table.draw(answered)
                psk = bytes(peer.preshared_key)
                requests.append((place, peer.keys.draw_ephemeral(), local_index, psk))
                answered[local_index] = peer, timestamp, psk, remote_index, endpoint
        if not requests:
            return
        responses = received.create_responses(requests)
        now = yield len(requests)
        for (local_index, (peer, timestamp, psk, remote_index, endpoint)), response in zip(
            answered.items(), responses, strict=True
        ):
            message, send, receive = response
            if identity is not self._context.identity:
                self._context.count(ProtocolDrop.BAD_MAC1)
            elif peer.removed:
                self._context.count(ProtocolDrop.PEER_REMOVED)
            elif bytes(peer.preshared_key) != psk:
                peer.count(ProtocolDrop.HANDSHAKE_INVALID)
            elif peer.stamps[0] != timestamp or not self._context.index_table.is_free(local_index):
                # The peer does not wait for it any more.
                peer.count(ProtocolDrop.OLD_TIMESTAMP)
            else:
                indices = local_index, remote_index
                peer.send_response(message, (send, receive), indices, endpoint, now)

    def _handle_response_untrusted(
        self, data: bytes, endpoint: E, now: float, *, admitted: bool
    ) -> None:
        receiver = int.from_bytes(data[8:12], "little")
        pending = self._context.index_table.handshakes.get(receiver)
        if pending is None:
            self._context.count(ProtocolDrop.UNKNOWN_HANDSHAKE)
            return
        if self._admit_untrusted(data, endpoint, now, admitted=admitted):
            pending.peer.accept_response_untrusted(pending, data, endpoint, now)

    def _handle_cookie_reply_untrusted(self, message: CookieReply, now: float) -> None:
        pending = self._context.index_table.handshakes.get(message.receiver)
        keypair = self._keypairs.get(message.receiver)
        if pending is not None:
            peer = pending.peer
        elif keypair is not None:
            peer = keypair.receiver[0]
        else:
            self._context.count(ProtocolDrop.UNKNOWN_HANDSHAKE)
            return
        try:
            peer.keys.macs().consume_cookie_reply_untrusted(message, now)
        except CookieError:
            peer.count(ProtocolDrop.COOKIE_INVALID)

    def _admit_untrusted(
        self,
        data: bytes,
        endpoint: E,
        now: float,
        *,
        admitted: bool,
        mac1_key: bytes | None = None,
    ) -> bool:
        """The cheap checks of a handshake message, before the expensive ones."""
        checker = self._checker
        if checker is None:
            self._context.count(ProtocolDrop.NO_PRIVATE_KEY)
            return False
        # While it waited, ours may have become another key.
        if mac1_key is not checker.mac1_key:
            try:
                checker.check_mac1(data)
            except MacError:
                self._context.count(ProtocolDrop.BAD_MAC1)
                self._context.report_refusal(ProtocolDrop.BAD_MAC1, endpoint, None, now)
                return False
        if admitted or not self.is_under_load(now):
            return True
        source = source_bytes(endpoint.address, endpoint.port)
        try:
            checker.check_mac2(data, source, now)
        except MacError:
            known = endpoint.address in self._context.peers_at
            if not self._cookie_replies.take(source, now, known=known):
                self._context.count(ProtocolDrop.COOKIE_UNANSWERED)
                return False
            reply = checker.create_cookie_reply(data, source, now)
            self._context.outputs.append(
                Datagram(None, endpoint, reply.emit(), DatagramKind.COOKIE_REPLY)
            )
            self._context.count(ProtocolDrop.COOKIE_REQUIRED)
            return False
        return self.admit_proven(source, now)

    # --- Load and time ---------------------------------------------------------------------------

    def set_under_load(self, now: float) -> None:
        """For one second, ask senders of handshake messages to prove their address."""
        self._under_load_until = now + UNDER_LOAD_TIME

    def is_under_load(self, now: float) -> bool:
        """Whether senders of handshake messages have to prove their address."""
        return now < self._under_load_until

    def count_drop(self, reason: ProtocolDrop, packets: int = 1) -> None:
        """Count packets the driver dropped for a reason of ours that belong to no peer."""
        self._context.count(reason, packets)

    def handle_deadline(self, now: float) -> None:
        """Run what is due, of up to 16 peers at a time."""

        def expire(peer: Peer[E, T], timer: Timer) -> None:
            peer.expire(timer, now)

        self._context.timers.run(now, MAX_PEERS_PER_DEADLINE, expire)

    def poll_output(self) -> Output[Peer[E, T], E, T] | None:
        """The next thing to do, oldest first; None when there is nothing."""
        outputs = self._context.outputs
        return outputs.popleft() if outputs else None
