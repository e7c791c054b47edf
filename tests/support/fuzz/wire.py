"""What comes from the network: datagrams, and the packets and Ethernet frames in them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto.cookies import mac1
from crypto.keys import PrivateKey
from crypto.messages import (
    CookieReply,
    HandshakeInitiation,
    HandshakeResponse,
    MessageError,
    TransportHeader,
)
from tests.support.engines import Side, joined, make_side, packet, run, until
from tests.support.fuzz.target import Target
from tunnel import datapath
from tunnel.capture import segments
from tunnel.datapath import OPEN_OUT_SIZE, SEAL_OUT_SIZE, Offload, Session, SessionFactory
from tunnel.datapath.interface import MAX_DATAGRAM, MESSAGE_OVERHEAD
from tunnel.datapath.virtio import VIRTIO_NET_HDR_LEN, VirtioNetHdr, carried_untrusted
from tunnel.doctor.probing import parse_refusal_untrusted
from tunnel.io import cmsg
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp_socket import Origin, Received
from tunnel.packet import icmp
from tunnel.packet.ethernet import HEADER_LENGTH, ip_of_ethernet
from tunnel.packet.filter import Filter
from tunnel.packet.headers import Headers
from tunnel.switch import EthernetSwitch, Frame, SwitchDrop
from tunnel.switch.frame import LOOKED_AT

STRANGER = Endpoint(bytes([203, 0, 113, 5]), 9)
KEY = bytes(range(32))
LOCAL, REMOTE = 1, 2
STATION = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0"
"""The Ethernet header of an IPv4 packet."""
FILTERS = tuple(
    map(Filter.parse, ("tcp port 80", "not (icmp or udp)", "host 10.0.0.1", "net fd00::/8"))
)
IPV4 = bytes.fromhex("450000540000000040630000") + bytes([10, 0, 0, 2, 10, 0, 0, 1])
IPV6 = bytes.fromhex("6000000000083a40fd") + bytes(14) + b"\2\xfd" + bytes(14) + b"\1"
PACKETS = (IPV4, IPV6, IPV6[:6] + b"\0\x40", b"\x2c\0\0\1", b"\x3c\0\1\4", b"\x2b\0", b"\x11\0\0\0")
"""Pieces of packets: headers of both kinds, extension headers, a fragment, a long option."""


def paths() -> tuple[datapath.Datapath, ...]:
    """The datapaths that there are here: Python's, and the compiled one."""
    found = [datapath.load("python")]
    with contextlib.suppress(datapath.UnknownDatapathError):
        found.append(datapath.load("native"))
    return tuple(found)


def fields(data: bytes, *sizes: int) -> tuple[list[int], bytes]:
    """Numbers of so many bytes each off the front (0 where it is used up), and the rest."""
    found = []
    for size in sizes:
        found.append(int.from_bytes(data[:size], "big"))
        data = data[size:]
    return found, data


# --- Messages ------------------------------------------------------------------------------------


def run_messages(data: bytes) -> None:
    """Each kind refuses it, or one has read it and gives the same bytes back."""
    refusals = []
    for kind in (HandshakeInitiation, HandshakeResponse, CookieReply, TransportHeader):
        try:
            message = kind.parse_untrusted(data)
        except MessageError as error:
            refusals.append(error)
            continue
        emitted = message.emit()
        assert emitted == data[: len(emitted)]
    assert len(refusals) >= 3, "two kinds have read the same message"
    if len(refusals) == 4:
        raise refusals[0]


class RigClock:
    """The time of a rig: trio's while it is made, and then a second more for each input."""

    def __init__(self) -> None:
        self.now = 1010.0

    def __call__(self) -> float:
        try:
            return trio.current_time()
        except RuntimeError:
            return self.now


class Rig(NamedTuple):
    """An engine with a session: what was sent for it, its receiver indices, and the peer's key.

    `counters` are those of the datagrams that the peer may send.
    """

    side: Side
    other: Side
    history: tuple[bytes, ...]
    indices: tuple[int, ...]
    key: ChaCha20Poly1305
    counters: Iterator[int]
    clock: RigClock

    def seal(self, plain: bytes) -> bytes:
        """A datagram of the peer with `plain` in it, which no session of ours would seal."""
        counter = next(self.counters).to_bytes(8, "little")
        head = b"\4\0\0\0" + self.indices[0].to_bytes(4, "little") + counter
        return head + self.key.encrypt(bytes(4) + counter, plain, None)


_RIGS: dict[tuple[str, bool], Rig] = {}


def rig(name: str, *, tap: bool = False) -> Rig:
    """The rig with the datapath of that name; a new one before its session is old."""
    found = _RIGS.get((name, tap))
    if found is None or found.clock.now > 1100:
        found = _RIGS[name, tap] = make_rig(name, tap=tap)
    found.clock.now += 1.1
    return found


def make_rig(name: str, *, tap: bool) -> Rig:
    """Two engines after a handshake and a packet each way, and one that waits for a response."""
    keys: dict[int, bytes] = {}
    path = datapath.load(name)
    clock = RigClock()

    def session(send: bytes, receive: bytes, local: int, remote: int, **how: Any) -> Session:
        keys[local] = receive
        return path.session(send, receive, local, remote, **how)

    watched = path._replace(session=cast(SessionFactory, session), pump=None)
    a, b = joined(*(make_side(n, clock, tap=tap, path=watched) for n in (1, 2)))
    link = STATION if tap else b""

    async def scenario(a: Side, b: Side) -> None:
        for one, other, source, destination in ((b, a, 2, 1), (a, b, 1, 2)):
            frame = packet(source, destination)
            one.tun.feed(frame[:10] + link + frame[10:])
            await until(partial(bool, other.tun.written))
        third = a.engine.interface.add_peer(PrivateKey(bytes([3]) * 32).public_key())
        third.set_endpoint(Endpoint(bytes([192, 0, 2, 3]), 51820))
        third.stage(packet(1, 3), clock())
        a.engine.settle()

    run((a, b), scenario)
    a.udp.other = b.udp.other = None
    history = tuple(data for data, *_ in (*b.udp.sent, *a.udp.sent))
    peer, _ = a.engine.interface.peers.values()
    sessions = (keypair.local_index for keypair in peer.keypairs.all())
    indices = (*sessions, *a.engine.interface._context.index_table.handshakes)
    return Rig(a, b, history, indices, ChaCha20Poly1305(keys[indices[0]]), count(1 << 20), clock)


def rigs(*, tap: bool = False) -> list[Rig]:
    """One for each datapath that there is."""
    return [rig(path.name, tap=tap) for path in paths()]


def state_of(side: Side) -> object:
    """What only those who have a key may change."""
    interface = side.engine.interface
    return [
        (key, peer.endpoint, [keypair.local_index for keypair in peer.keypairs.all()])
        for key, peer in interface.peers.items()
    ]


def receive(found: Rig, data: bytes, stride: int, source: Endpoint) -> None:
    """Have the engine receive a batch, and answer what waits. Nothing goes uncounted, and what is
    sent has no more bytes than what came.
    """
    side, engine = found.side, found.side.engine
    before = sum(engine.drops().values()) + engine.load.opened.total
    side.udp.sent.clear()
    received = Received(len(data), stride, Origin(source.sockaddr, source.source), 0)
    out = bytearray(OPEN_OUT_SIZE)
    engine._receiver._handle_datagrams_untrusted(bytearray(data), received, out, found.clock())
    while len(engine._handshakes):
        engine._handshakes._answer_untrusted(1, found.clock())
    engine._drain_outputs(found.clock())
    answers = [sent for sent, *_ in side.udp.sent]
    after = sum(engine.drops().values()) + engine.load.opened.total
    responses = sum(sent[0] == HandshakeResponse.TYPE for sent in answers)
    assert after - before + responses >= -(-len(data) // stride), "datagrams were lost sight of"
    assert sum(map(len, answers)) <= len(data), "more bytes were sent than came"


def run_datagrams(data: bytes) -> None:
    """A batch from a stranger: junk, or with a right mac1, or a right receiver index, or what the
    peer itself has sent once, all or a part of it.
    """
    (mode, stride, number), batch = fields(data, 1, 2, 1)
    stride = stride % 2048 or len(batch) or 1
    if not batch:
        return
    for found in rigs():
        made = bytearray(batch)
        if mode & 1:
            made = bytearray(found.history[number % len(found.history)]) + made
            stride = stride if mode & 2 else len(made)
        for at in range(0, len(made) - 8, stride):
            if mode & 4:
                index = found.indices[number % len(found.indices)].to_bytes(4, "little")
                place = 8 if made[at] == HandshakeResponse.TYPE else 4
                made[at + place : at + place + 4] = index
            if mode & 8 and len(made) - at >= stride >= 64:
                body = bytes(made[at : at + stride - 32])
                key = found.side.engine.interface.public_key
                assert key is not None
                made[at + stride - 32 : at + stride - 16] = mac1(key, body)
        engine = found.side.engine
        if mode & 16:
            engine.interface.set_under_load(found.clock())
        before = state_of(found.side)
        found.side.tun.written.clear()
        receive(found, bytes(made), stride, STRANGER)
        assert state_of(found.side) == before, "one without a key has changed something"
        assert not found.side.tun.written, "one without a key has sent a packet"


# --- Inner packets -------------------------------------------------------------------------------


def run_inner(data: bytes, *, tap: bool) -> None:
    """What a peer with a key may seal: packets of any form. Those that are delivered come from its
    addresses.
    """
    (length,), rest = fields(data, 1)
    length = 16 * (length % 100 + 1)
    pieces = [rest[at : at + length] for at in range(0, len(rest), length)][:64]
    for found in rigs(tap=tap) if pieces else ():
        batch = b"".join(map(found.seal, pieces))
        written = found.side.tun.written
        written.clear()
        receive(found, batch, length + MESSAGE_OVERHEAD, found.other.udp.own)
        for frame in written:
            inner = ip_of_ethernet(frame[10:]) if tap else frame[10:]
            free = (bytes(4), bytes(16)) if tap else ()
            if inner or not tap:
                source = inner[12:16] if inner[0] >> 4 == 4 else inner[8:24]
                assert source == bytes([10, 0, 0, 2]) or source in free, "from a foreign address"
            assert not tap or int.from_bytes(frame[22:24], "big") in ALLOWED_TYPES


ALLOWED_TYPES = (0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8)
"""Of the frames that a peer with AllowedIPs may send, with VLAN tags."""


UNREAD = ("counter_limit", "replay", "authentication")
"""The drops of datagrams that are not counted among the packets."""


def run_open(data: bytes) -> None:
    """Datagrams of a session, right or wrong: taken or counted, and both datapaths agree."""
    (mode, stride, ecn), rest = fields(data, 1, 2, 1)
    stride = stride % 2000 + 1
    cipher = ChaCha20Poly1305(KEY)
    batch = bytearray(rest)
    if mode & 1:
        batch = bytearray()
        for number, at in enumerate(range(0, len(rest), max(1, stride - MESSAGE_OVERHEAD))):
            head = struct.pack("<IIQ", 4, LOCAL, number * (1 << (mode >> 5)))
            plain = rest[at : at + max(1, stride - MESSAGE_OVERHEAD)]
            batch += head + cipher.encrypt(bytes(4) + head[8:], plain, None)
        stride = max(stride, MESSAGE_OVERHEAD + 1)
    elif mode & 2:
        for at in range(0, len(batch) - 8, stride):
            batch[at : at + 8] = struct.pack("<II", 4, LOCAL)
    del batch[MAX_DATAGRAM:]
    results = []
    for path in paths():
        session = path.session(KEY, KEY, LOCAL, REMOTE, ethernet=bool(mode & 4))
        out = bytearray(OPEN_OUT_SIZE)
        opened = session.open(
            batch, 0, len(batch), stride, out, coalesce=Offload(mode >> 3 & 15), outer_ecn=ecn & 3
        )
        taken = -(-opened.consumed // stride)
        unread = sum(opened.drops.get(each, 0) for each in UNREAD)
        assert opened.packets + unread == taken, "datagrams were lost sight of"
        results.append((opened, out))
    assert all(each == results[0] for each in results)


def run_seal(data: bytes, *, ethernet: bool) -> None:
    """A frame as the device gives it: sealed or counted, and both datapaths agree."""
    (mtu,), frame = fields(data, 2)
    results = []
    for path in paths():
        session = path.session(KEY, KEY, LOCAL, REMOTE, ethernet=ethernet)
        out = bytearray(SEAL_OUT_SIZE)
        sealed = session.seal(frame, [(0, len(frame))], mtu, out)
        assert sealed.consumed == 1
        assert bool(sealed.packets) != bool(sealed.drops), "neither sealed nor counted, or both"
        if sealed.packets:
            assert VirtioNetHdr.unpack_untrusted(frame).pack() == frame[:VIRTIO_NET_HDR_LEN]
        results.append((sealed, out))
    assert all(each == results[0] for each in results)
    packets, size = carried_untrusted(frame)
    assert packets >= 1
    assert size >= 0


# --- Who looks at packets ------------------------------------------------------------------------


def run_headers(data: bytes) -> None:
    """The first bytes of a packet: for traces, captures, filters, and answers by ICMP."""
    headers = Headers.parse(data)
    if headers is not None:
        assert headers.network + headers.transport in data
        assert Headers.of_parts(headers.network, headers.transport) == headers
        size = 4 if headers.version == 4 else 16
        assert len(headers.source) == len(headers.destination) == size
        texts = headers.flow(), headers.kind()
        assert all(text.isprintable() for text in texts)
        _ = headers.size, headers.ports, headers.wireguard, headers.is_echo, headers.key
        for each in FILTERS:
            each.matches(headers)
        assert b"".join(segments.split(data))
    answer = icmp.unreachable(data)
    if answer is not None:
        assert headers is not None
        assert len(answer) <= 1280
        answered = Headers.parse(answer)
        assert answered is not None
        assert answered.destination == headers.source
        assert icmp.unreachable(answer) is None, "an error is answered by an error"
    ip_of_ethernet(data)
    for version in (4, 6):
        parse_refusal_untrusted(data, version)


def run_ethernet(data: bytes) -> None:
    """A frame of a TAP or of a peer. What a peer that has addresses may send claims no others."""
    (mode,), rest = fields(data, 1)
    if len(rest) < HEADER_LENGTH:
        return
    frame = Frame(rest[:LOOKED_AT])
    switch: EthernetSwitch[str] = EthernetSwitch(
        peers=lambda: ("a", "b"),
        owner=lambda address: "a" if address[0] & 1 else None,
        is_bound=lambda peer: peer == "a" or bool(mode & 1),
    )
    for peer in ("a", "b"):
        if switch.source_allowed(peer, frame):
            assert peer == "b" or frame.claims is not None
            for address in frame.claims or ():
                assert (peer == "a") == bool(address[0] & 1) or (peer == "b" and not mode & 1)
            switch.receive(peer, frame, 0.0)
    found = switch.destinations(frame, 0.0)
    assert isinstance(found, SwitchDrop) or set(found) <= {"a", "b"}


def run_control_messages(data: bytes) -> None:
    """What the kernel says of a datagram: four bytes of level and kind, a length, and the value."""
    messages: list[tuple[int, int, bytes]] = []
    while len(data) >= 3 and len(messages) < 100:
        (level, kind, length), data = fields(data, 1, 1, 1)
        messages.append((level, kind, data[:length]))
        data = data[length:]
    found = cmsg.parse(messages)
    assert found.ecn in range(4)
    assert found.stride >= 0


TARGETS = (
    Target(
        name="messages",
        reads=("crypto.messages",),
        run=run_messages,
        refusal=MessageError,
        base=200,
        per_byte=0,
        words=(b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"),
    ),
    Target(
        name="datagrams",
        reads=(
            "crypto.cookies",
            "crypto.handshake",
            "crypto.identity",
            "crypto.noise",
            "tunnel.engine.handshake_queue",
            "tunnel.engine.receiver",
            "tunnel.protocol.handshakes",
            "tunnel.protocol.interface",
            "tunnel.protocol.peer",
        ),
        run=run_datagrams,
        base=20_000,
        per_byte=100,
        words=(b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0", bytes(16)),
    ),
    Target(
        name="inner_packets",
        reads=("tunnel.datapath.reference", "tunnel.datapath.ip", "tunnel.datapath.coalesce"),
        run=partial(run_inner, tap=False),
        base=20_000,
        per_byte=100,
        words=PACKETS,
    ),
    Target(
        name="inner_frames",
        reads=("tunnel.datapath.ethernet", "tunnel.engine.switching"),
        run=partial(run_inner, tap=True),
        base=20_000,
        per_byte=100,
        words=(b"\x30\0" + STATION, STATION[:12] + b"\x81\0\0\7\x08\0", *PACKETS),
    ),
    Target(
        name="transport_data",
        reads=("tunnel.datapath.reference", "tunnel.datapath.replay"),
        run=run_open,
        base=5_000,
        per_byte=100,
        words=PACKETS,
    ),
    Target(
        name="virtio_frames",
        reads=("tunnel.datapath.virtio", "tunnel.datapath.split", "tunnel.datapath.ip"),
        run=partial(run_seal, ethernet=False),
        words=(b"\1\1\0\0", b"\1\4\0\0", b"\1\5\0\0", *PACKETS),
    ),
    Target(
        name="tap_frames",
        reads=("tunnel.datapath.split", "tunnel.datapath.ethernet"),
        run=partial(run_seal, ethernet=True),
        words=(STATION, b"\x81\0\0\7", b"\x88\xa8\0\7", *PACKETS),
    ),
    Target(
        name="packet_headers",
        reads=(
            "tunnel.packet.headers",
            "tunnel.packet.icmp",
            "tunnel.packet.ethernet",
            "tunnel.capture.segments",
            "tunnel.doctor.probing",
        ),
        run=run_headers,
        words=PACKETS,
    ),
    Target(
        name="ethernet_frames",
        reads=("tunnel.switch.frame", "tunnel.packet.ethernet"),
        run=run_ethernet,
        words=(STATION, b"\x08\6\0\1\x08\0\6\4", b"\x86\xdd", b"\x81\0\0\7", *PACKETS),
    ),
    Target(
        name="control_messages",
        reads=("tunnel.io.cmsg",),
        run=run_control_messages,
        words=(b"\0\x08", b"\x29\x32", b"\x11\x68", b"\0\1", b"\x29\x43"),
    ),
)
