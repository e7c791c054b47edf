"""Ends of a tunnel whose processes end and go on: engines driven by hand, in virtual time."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import cast

from tests.support.engines import FakeTun, FakeUdp, packet
from tunnel import datapath
from tunnel.config import PrivateKey, PublicKey
from tunnel.datapath import OPEN_OUT_SIZE
from tunnel.engine import Engine
from tunnel.engine.common import Peer
from tunnel.engine.session_record import SessionRecord
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp
from tunnel.protocol import Event, HandshakeCompleted
from tunnel.protocol.timers import Timer


@dataclass
class Time:
    """Seconds since boot, and nanoseconds since 1970 with them."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def unix_ns(self) -> int:
        return 1_800_000_000 * 10**9 + int(self.now * 1e9)


def key_of(number: int) -> PrivateKey:
    return PrivateKey.from_random(bytes([number]) * 32)


@dataclass
class End:
    """One end: 10.0.0.`number`. What it sends collects in `udp.sent`."""

    number: int
    time: Time
    record: SessionRecord | None = None
    path: datapath.Datapath = field(default_factory=lambda: datapath.load("python"))
    private_key: PrivateKey | None = None
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.udp = FakeUdp(Endpoint(bytes([192, 0, 2, self.number]), 51820))
        self.engine = Engine(
            tun=cast(Tun, FakeTun()),
            udp=cast(Udp, self.udp),
            mtu=1420,
            path=self.path._replace(pump=None),
            clock=self.time,
            unix_time_ns=self.time.unix_ns,
            on_event=self.events.append,
            record=self.record,
        )
        key = self.private_key or key_of(self.number)
        self.engine.interface.set_private_key(key, self.time.now)
        self.out = bytearray(OPEN_OUT_SIZE)

    @property
    def public_key(self) -> PublicKey:
        public = self.engine.interface.public_key
        assert public is not None
        return public

    @property
    def handshakes(self) -> int:
        return sum(isinstance(event, HandshakeCompleted) for event in self.events)

    def add(self, other: End, *, placeless: bool = False) -> Peer:
        """The peer, which the conf gives no place if it is to be `placeless`."""
        peer = self.engine.interface.add_peer(other.public_key)
        if not placeless:
            peer.set_endpoint(other.udp.own)
            self.engine.set_given(peer, str(other.udp.own).encode())
        network = IPv4Network(f"10.0.0.{other.number}/32")
        self.engine.interface.allowed_ips.insert(network, peer)
        return peer

    def peer(self, other: End) -> Peer:
        return self.engine.interface.peers[other.public_key]

    def send(self, other: End, packets: int = 1) -> list[bytes]:
        """Packets to the other end; what is sent for them."""
        before = len(self.udp.sent)
        for _ in range(packets):
            self.peer(other).stage(packet(self.number, other.number), self.time.now)
        self.engine.settle()
        return [data for data, *_ in self.udp.sent[before:]]

    def initiate(self, other: End) -> list[bytes]:
        """A handshake, as the other end has been silent: the initiation, if none is under way. It
        has not arrived yet."""
        self.time.now += 6
        before = len(self.udp.sent)
        self.peer(other).expire(Timer.NEW_HANDSHAKE, self.time.now)
        self.engine.settle()
        messages = [data for data, *_ in self.udp.sent[before:]]
        del self.udp.sent[before:]
        return messages

    def elapse(self, seconds: float) -> list[bytes]:
        """Time goes by, and what is due is done; what is sent for it."""
        before = len(self.udp.sent)
        end = self.time.now + seconds
        while True:
            due = self.engine.interface.next_deadline()
            if due is None or due > end:
                break
            self.time.now = max(self.time.now, due)
            self.engine.interface.handle_deadline(self.time.now)
            self.engine.settle()
        self.time.now = end
        return [data for data, *_ in self.udp.sent[before:]]

    def take(self, messages: list[bytes], source: Endpoint) -> int:
        """What came from there; how many packets and keepalives it accepted."""
        taken = 0
        interface, now = self.engine.interface, self.time.now
        for data in messages:
            if data[0] != 4:
                interface.handle_message_untrusted(data, source, now)
            elif found := interface.transport_for_receiving(
                int.from_bytes(data[4:8], "little"), now
            ):
                peer, session = found
                opened = session.open(data, 0, len(data), len(data), self.out)
                taken += opened.packets
                if opened.packets:
                    is_data = opened.packets > opened.keepalives
                    peer.handle_received(session, source, now, opened.wire_bytes, data=is_data)
            self.engine.settle()
        return taken


def exchange(one: End, other: End) -> None:
    """All that both have sent arrives, until nothing more comes of it."""
    while one.udp.sent or other.udp.sent:
        for end, far in ((one, other), (other, one)):
            messages = [data for data, *_ in end.udp.sent]
            end.udp.sent.clear()
            far.take(messages, end.udp.own)


def kill(end: End) -> int:
    """The process ends with no goodbye; the descriptor of its record that someone else keeps."""
    assert end.record is not None
    kept = os.dup(end.record.fileno())
    end.record.close()
    end.record = None
    return kept


def written(fd: int) -> bytes:
    """All of a record behind its header."""
    data = b""
    at = 4096
    size = os.fstat(fd).st_size
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        data += os.pread(fd, 4096, at)
        at += 4096
    return data
