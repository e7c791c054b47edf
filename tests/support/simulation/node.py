"""A host without a kernel: one `Interface`, a real cipher, and a driver of a few lines.

It does what the engine does, one packet at a time, and watches over what must never happen: a
keypair used past its limits, a packet accepted twice, a table that grows.
"""

import random as random_module
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto.keys import PrivateKey, PublicKey
from tunnel.protocol import Datagram, Event, Interface, Peer, ProtocolDrop, Seal
from tunnel.protocol.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME

_HEADER = struct.Struct("<IIQ")
_NONCE = struct.Struct("<4xQ")
INNER = struct.Struct(">4s4sQ")
REPLAY_WINDOW = 8192


@dataclass(frozen=True)
class Address:
    """Where a node is on the simulated network."""

    address: bytes
    port: int = 51820


class Cipher:
    """One keypair: ChaCha20-Poly1305 and a replay window made of a set. Slow and obvious."""

    first_counter = 0
    """Where counting starts: a simulation cannot send 2^60 messages."""

    def __init__(
        self, send_key: bytes, receive_key: bytes, local_index: int, remote_index: int
    ) -> None:
        self._send = ChaCha20Poly1305(send_key)
        self._receive = ChaCha20Poly1305(receive_key)
        self.keys = (send_key, receive_key)
        self.local_index = local_index
        self.remote_index = remote_index
        self.send_counter = self.first_counter
        self.created = 0.0
        self._greatest = -1
        self._seen: set[int] = set()

    def seal(self, packet: bytes) -> bytes:
        counter = self.send_counter
        assert counter < REJECT_AFTER_MESSAGES
        self.send_counter += 1
        packet += bytes(-len(packet) % 16)
        header = _HEADER.pack(4, self.remote_index, counter)
        return header + self._send.encrypt(_NONCE.pack(counter), packet, None)

    def open(self, datagram: bytes) -> bytes | None:
        """The packet; None for a forgery or a replay."""
        counter = _HEADER.unpack_from(datagram)[2]
        try:
            packet = self._receive.decrypt(_NONCE.pack(counter), datagram[_HEADER.size :], None)
        except InvalidTag:
            return None
        if counter in self._seen or counter <= self._greatest - REPLAY_WINDOW:
            return None
        self._seen.add(counter)
        if counter > self._greatest:
            self._greatest = counter
            if len(self._seen) > 2 * REPLAY_WINDOW:
                self._seen = {c for c in self._seen if c > counter - REPLAY_WINDOW}
        return packet


class Remote(Protocol):
    """What a node must know of another to have it as a peer."""

    address: Address
    inner: bytes

    @property
    def public_key(self) -> PublicKey: ...


@dataclass
class Node:
    """A host at `address`, whose inner address is `inner` and whose inner net is `inner`/32.

    `transmit(source, destination, datagram)` carries its datagrams; `now` is handed in.
    """

    name: str
    seed: int
    address: Address
    inner: bytes
    transmit: Callable[[Address, Address, bytes], None]
    unix_time_ns: Callable[[], int]
    cipher: type[Cipher] = Cipher
    now: float = 0.0
    events: list[Event] = field(default_factory=list)
    received: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    keep_events: bool = True
    private_key: PrivateKey = field(init=False)
    interface: Interface[Address, Cipher] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random_module.Random(self.seed)
        self.private_key = PrivateKey.from_random(self._random.randbytes(32))
        self.restart()

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key()

    def restart(self) -> None:
        """Lose everything but the private key; peers must be added again."""
        self.interface = Interface(
            random=self._random.randbytes,
            unix_time_ns=self.unix_time_ns,
            make_transport=self._make_cipher,
        )
        self.interface.set_private_key(self.private_key, self.now)

    def _make_cipher(
        self, send_key: bytes, receive_key: bytes, local_index: int, remote_index: int
    ) -> Cipher:
        cipher = self.cipher(send_key, receive_key, local_index, remote_index)
        cipher.created = self.now
        self.counts["keypairs"] += 1
        return cipher

    def add_peer(self, other: Remote, *, endpoint: bool = True) -> Peer[Address, Cipher]:
        """Make `other` a peer that owns its inner address, by default with its endpoint."""
        peer = self.interface.add_peer(other.public_key)
        self.interface.allowed_ips.insert(ip_network((other.inner, 32)), peer)
        if endpoint:
            peer.set_endpoint(other.address)
        return peer

    def peer(self, other: Remote) -> Peer[Address, Cipher]:
        return self.interface.peers[other.public_key]

    # --- What a driver does ----------------------------------------------------------------------

    def send(self, destination: bytes, serial: int) -> None:
        """An application sends packet number `serial` to an inner address."""
        packet = INNER.pack(destination, self.inner, serial)
        peer = self.interface.peer_for_destination(destination)
        if peer is None:
            self.interface.count_drop(ProtocolDrop.NO_PEER)
            return
        cipher = peer.keypairs.transport_for_sending(self.now)
        if cipher is None:
            peer.stage(packet, self.now)
        else:
            self._seal(peer, cipher, packet)
        self.drain()

    def next_deadline(self) -> float | None:
        return self.interface.next_deadline()

    def receive(self, datagram: bytes, source: Address) -> None:
        """A datagram arrives."""
        if len(datagram) >= 32 and datagram[:4] == b"\4\0\0\0":
            self._receive_transport(datagram, source)
        else:
            self.interface.handle_message_untrusted(datagram, source, self.now)
        self.drain()

    def wake(self) -> None:
        """The deadline has come, or anything else that may change it."""
        while True:
            deadline = self.interface.next_deadline()
            if deadline is None or deadline > self.now:
                break
            self.interface.handle_deadline(self.now)
            self.drain()

    def drain(self) -> None:
        while (output := self.interface.poll_output()) is not None:
            if isinstance(output, Datagram):
                self.counts[output.kind] += 1
                self.transmit(self.address, output.endpoint, output.data)
            elif isinstance(output, Seal):
                for frame in output.frames or (b"",):
                    self._seal(output.peer, output.transport, frame)
            else:
                self.counts[type(output).__name__] += 1
                if self.keep_events:
                    self.events.append(output)

    def _seal(self, peer: Peer[Address, Cipher], cipher: Cipher, packet: bytes) -> None:
        assert self.now - cipher.created < REJECT_AFTER_TIME, "sent past the keypair's time"
        datagram = cipher.seal(packet)
        self.counts["data" if packet else "keepalive"] += 1
        if peer.endpoint is not None:
            self.transmit(self.address, peer.endpoint, datagram)
        peer.handle_sent(self.now, len(datagram), data=bool(packet))

    def _receive_transport(self, datagram: bytes, source: Address) -> None:
        index = int.from_bytes(datagram[4:8], "little")
        found = self.interface.transport_for_receiving(index, self.now)
        if found is None:
            return
        peer, cipher = found
        assert self.now - cipher.created < REJECT_AFTER_TIME, "received past the keypair's time"
        packet = cipher.open(datagram)
        if packet is None:
            self.counts["refused"] += 1
            return
        peer.handle_received(
            cipher,
            source,
            self.now,
            len(datagram),
            data=bool(packet),
        )
        if not packet:
            self.counts["keepalives received"] += 1
            return
        _, inner, serial = INNER.unpack(packet)
        if not self.interface.source_allowed(peer, inner):
            peer.count(ProtocolDrop.SOURCE_NOT_ALLOWED)
            return
        assert serial not in self.received, "accepted a packet twice"
        self.received.add(serial)

    # --- What must hold at any time --------------------------------------------------------------

    def check_bounds(self) -> None:
        """No table holds more than its peers can need."""
        context = self.interface._context
        peers = len(self.interface.peers)
        assert len(context.index_table.keypairs) <= 3 * peers
        assert len(context.index_table.handshakes) <= peers
        assert len(context.timers) <= max(256, 4 * peers + 1)
        assert not context.outputs
        assert context.staged_bytes == sum(
            peer._staged._bytes for peer in self.interface.peers.values()
        )
        for peer in self.interface.peers.values():
            assert peer.staged_frames <= 128
            for keypair in peer.keypairs.all():
                assert context.index_table.keypairs[keypair.local_index] is keypair
