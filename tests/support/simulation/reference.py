"""How wireguard-go and Linux answer, in a node of the simulation: one handshake slot for a peer.

Written from wireguard-go's `noise-protocol.go`, `keypair.go`, `send.go` and `timers.go`. What
differs from `tunnel.protocol` is what matters here: to consume an initiation, or to answer one,
overwrites the own initiation that is under way; and an answered handshake drops *previous*.
"""

import random as random_module
from collections.abc import Callable
from dataclasses import dataclass, field

from crypto import tai64n
from crypto.cookies import MacGenerator
from crypto.errors import HandshakeError
from crypto.handshake import Initiator, Responder, TransportKeys
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from crypto.messages import HandshakeInitiation, HandshakeResponse

from .node import INNER, Address, Cipher

REKEY_TIMEOUT = 5.0
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
JITTER = 0.334


@dataclass
class _Keys:
    cipher: Cipher
    is_initiator: bool
    created: float


@dataclass
class ReferenceNode:
    """One interface with one peer. `transmit`, `now` and the rest are as with `Node`."""

    name: str
    seed: int
    address: Address
    inner: bytes
    transmit: Callable[[Address, Address, bytes], None]
    unix_time_ns: Callable[[], int]
    now: float = 0.0
    received: set[int] = field(default_factory=set)
    initiations: int = 0
    private_key: PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self._random = random_module.Random(self.seed)
        self.private_key = PrivateKey.from_random(self._random.randbytes(32))
        self._peer: PublicKey
        self._endpoint: Address
        self._macs: MacGenerator
        self._staged: list[bytes] = []
        self._handshake: tuple[int, Initiator] | None = None
        self._last_sent = -REKEY_TIMEOUT
        self._last_timestamp = b""
        self._retry_at: float | None = None
        self._previous: _Keys | None = None
        self._current: _Keys | None = None
        self._next: _Keys | None = None

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key()

    def set_peer(self, public_key: PublicKey, endpoint: Address) -> None:
        self._peer, self._endpoint = public_key, endpoint
        self._macs = MacGenerator(public_key)

    # --- What the network calls ------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        return self._retry_at

    def wake(self) -> None:
        if self._retry_at is not None and self._retry_at <= self.now:
            self._retry_at = None
            self._initiate()

    def send(self, destination: bytes, serial: int) -> None:
        """An application sends packet number `serial` to an inner address."""
        self._staged.append(INNER.pack(destination, self.inner, serial))
        self._send_staged()

    def receive(self, datagram: bytes, source: Address) -> None:
        match datagram[0]:
            case 1:
                self._consume_initiation(HandshakeInitiation.parse_untrusted(datagram), source)
            case 2:
                self._consume_response(HandshakeResponse.parse_untrusted(datagram), source)
            case 4:
                self._consume_transport(datagram, source)

    # --- Handshakes ------------------------------------------------------------------------------

    def _initiate(self) -> None:
        if self.now - self._last_sent < REKEY_TIMEOUT:
            return
        self._last_sent = self.now
        self._retry_at = self.now + REKEY_TIMEOUT + self._random.uniform(0, JITTER)
        index = self._random.getrandbits(32)
        initiator = Initiator(
            static=self.private_key, remote_static=self._peer, preshared_key=PresharedKey.ZERO
        )
        message = initiator.create_initiation(
            ephemeral=PrivateKey.from_random(self._random.randbytes(32)),
            sender=index,
            timestamp=tai64n.encode(self.unix_time_ns()),
        )
        self._handshake = index, initiator
        self.initiations += 1
        self._transmit(self._macs.add_macs(message.emit(), self.now))

    def _consume_initiation(self, message: HandshakeInitiation, source: Address) -> None:
        responder = Responder.consume_initiation_untrusted(message, static=self.private_key)
        assert responder.remote_static == self._peer
        if responder.timestamp <= self._last_timestamp:
            return
        self._last_timestamp = responder.timestamp
        self._handshake = None  # the one slot is the responder's now
        self._endpoint = source
        index = self._random.getrandbits(32)
        response, keys = responder.create_response(
            ephemeral=PrivateKey.from_random(self._random.randbytes(32)),
            sender=index,
            preshared_key=PresharedKey.ZERO,
        )
        self._last_sent = self.now
        self._transmit(self._macs.add_macs(response.emit(), self.now))
        self._next = self._keys(keys, index, responder.remote_index, is_initiator=False)
        self._previous = None

    def _consume_response(self, message: HandshakeResponse, source: Address) -> None:
        if self._handshake is None or self._handshake[0] != message.receiver:
            return
        index, initiator = self._handshake
        try:
            keys = initiator.consume_response_untrusted(message)
        except HandshakeError:
            return
        self._handshake = None
        self._endpoint = source
        self._previous = self._current if self._next is None else self._next
        self._next = None
        self._current = self._keys(keys, index, message.sender, is_initiator=True)
        self._retry_at = None
        self._send_staged(keepalive=True)

    # --- Data ------------------------------------------------------------------------------------

    def _consume_transport(self, datagram: bytes, source: Address) -> None:
        index = int.from_bytes(datagram[4:8], "little")
        for keys in (self._current, self._previous, self._next):
            if (
                keys is not None
                and keys.cipher.local_index == index
                and self.now - keys.created < REJECT_AFTER_TIME
            ):
                packet = keys.cipher.open(datagram)
                if packet is None:
                    return
                self._endpoint = source
                if keys is self._next:
                    self._previous, self._current, self._next = self._current, keys, None
                    self._retry_at = None
                    self._send_staged()
                if packet:
                    self.received.add(INNER.unpack(packet)[2])
                return

    def _send_staged(self, *, keepalive: bool = False) -> None:
        current = self._current
        if current is None or self.now - current.created >= REJECT_AFTER_TIME:
            self._initiate()
            return
        for packet in self._staged or ([b""] if keepalive else []):
            self._transmit(current.cipher.seal(packet))
        self._staged.clear()
        if current.is_initiator and self.now - current.created >= REKEY_AFTER_TIME:
            self._initiate()

    def _keys(self, keys: TransportKeys, local: int, remote: int, *, is_initiator: bool) -> _Keys:
        cipher = Cipher(keys.send, keys.receive, local, remote)
        return _Keys(cipher, is_initiator, self.now)

    def _transmit(self, datagram: bytes) -> None:
        self.transmit(self.address, self._endpoint, datagram)
