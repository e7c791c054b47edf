"""What changes while packets flow, with the pump and without: both do the same."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest
import trio

from tests.support.engines import packet
from tests.support.loopback import LoopbackSide, loopback_sides, run_sides
from tunnel import datapath
from tunnel.config import PrivateKey
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.datapath.pump import Outgoing, Unsent
from tunnel.engine.common import Peer
from tunnel.engine.instrument import TracerGroup
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp_socket import Sent
from tunnel.linux import kernel
from tunnel.protocol import HandshakeCompleted, PeerRoamed, ProtocolDrop

Three = list[LoopbackSide]


@pytest.fixture(params=datapath.available())
def three(request: pytest.FixtureRequest) -> Iterator[Three]:
    with loopback_sides(3, request.param) as sides:
        yield sides


def peer_of(side: LoopbackSide, other: LoopbackSide) -> Peer:
    public = other.engine.interface.public_key
    assert public is not None
    return side.engine.interface.peers[public]


def handshakes(side: LoopbackSide) -> int:
    return sum(isinstance(event, HandshakeCompleted) for event in side.events)


async def dropped(side: LoopbackSide, reason: str, count: int) -> None:
    """Wait until so many packets were dropped for that reason."""
    with trio.fail_after(10):
        while side.engine.drops().get(reason, 0) < count:
            await trio.sleep(0.001)


def test_both_ends_count_what_they_carried(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        there, back = peer_of(a, b), peer_of(b, a)
        before = there.tx_bytes, back.rx_bytes, a.engine.load.sealed.total
        frames = [packet(1, 2, 100 + n) for n in range(30)]
        a.give(*frames)
        assert await b.take(30) == frames
        wire = sum(MESSAGE_OVERHEAD + -(-(len(each) - 10) // 16) * 16 for each in frames)
        assert there.tx_bytes - before[0] == back.rx_bytes - before[1] == wire
        assert a.engine.load.sealed.total - before[2] == 30
        assert a.engine.drops() == b.engine.drops() == {}

    run_sides(three, scenario)


def test_the_pump_reads_what_it_may_by_itself(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        before = a.tun.reads
        for _ in range(5):
            await a.carry(b)
        has_pump = a.engine.datapath.pump is not None
        assert (a.tun.reads == before) is has_pump

    run_sides(three, scenario)


def test_an_address_that_becomes_another_peers_goes_there(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        await a.settle(c)
        a.engine.interface.allowed_ips.insert(IPv4Network("10.0.0.2/32"), peer_of(a, c))
        frame = packet(1, 2)
        a.give(frame)
        assert await c.take(1) == [frame]
        # And as a source it is not b's any more.
        b.give(packet(2, 1))
        await dropped(a, "source_not_allowed", 1)
        assert peer_of(a, b).drops == {ProtocolDrop.SOURCE_NOT_ALLOWED: 1}
        c.give(packet(2, 1))
        assert await a.take(1) == [packet(2, 1)]

    run_sides(three, scenario)


def test_a_more_specific_prefix_takes_its_part(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        table = a.engine.interface.allowed_ips
        table.insert(IPv4Network("10.1.0.0/16"), peer_of(a, b))
        frame = bytes(10) + packet(1, 2)[10:26] + bytes([10, 1, 2, 3]) + packet(1, 2)[30:]
        for _ in range(3):
            a.give(frame)
            assert await b.take(1) == [frame]
        table.insert(IPv4Network("10.1.2.0/24"), peer_of(a, c))
        a.give(frame)
        assert await c.take(1) == [frame]
        table.remove(IPv4Network("10.1.2.0/24"), peer_of(a, c))
        a.give(frame)
        assert await b.take(1) == [frame]

    run_sides(three, scenario)


def test_a_removed_peer_gets_nothing_more(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        a.engine.interface.remove_peer(peer_of(a, b).public_key)
        a.engine.settle()
        a.give(packet(1, 2))
        await dropped(a, "no_peer", 1)
        b.give(packet(2, 1))
        await dropped(a, "unknown_session", 1)
        await a.carry(c)

    run_sides(three, scenario)


def test_a_new_endpoint_is_used_at_once(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as other:
            await other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            peer_of(a, b).set_endpoint(Endpoint(bytes([127, 0, 0, 1]), port))
            a.give(packet(1, 2))
            with trio.fail_after(10):
                datagram = await other.recv(2000)
        assert datagram[:4] == b"\4\0\0\0"

    run_sides(three, scenario)


def test_a_peer_that_moves_is_followed(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        before = handshakes(a)
        for _ in range(3):
            b.udp.set_port(0)
            await b.carry(a)
            await a.settle(b)
        assert sum(isinstance(event, PeerRoamed) for event in a.events) == 3
        assert handshakes(a) == before

    run_sides(three, scenario)


def test_our_own_sockets_may_be_others(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        a.udp.set_port(0)
        await a.settle(b)
        a.udp.leave_source_open(frozenset({(bytes([127, 0, 0, 1]), bytes([127, 0, 0, 1]))}))
        await a.settle(b)
        endpoint = peer_of(a, b).endpoint
        assert endpoint is not None
        assert endpoint.source is None

    run_sides(three, scenario)


def test_a_new_private_key_ends_all_sessions(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        a.engine.interface.set_private_key(PrivateKey.from_random(b"n" * 32), a.engine.clock())
        a.engine.settle()
        a.give(packet(1, 2))
        await dropped(b, "unknown_peer", 1)

    run_sides(three, scenario)


def test_nothing_passes_while_the_link_is_down(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        b.engine.set_link_up(False)
        a.give(packet(1, 2))
        await dropped(b, "interface_down", 1)
        b.engine.set_link_up(True)
        await b.carry(a)
        await a.settle(b)

    run_sides(three, scenario)


class CountingTracer(TracerGroup):
    """Counts frames."""

    def __init__(self) -> None:
        super().__init__([])
        self.frames = self.packets = 0

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        return len(spans)

    def frame_read(self, view: memoryview, start: int, end: int, drop: str | None) -> None:
        self.frames += 1

    def packet_delivered(self, drop: str | None) -> None:
        self.packets += 1


def test_who_watches_sees_every_packet(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        here, there = CountingTracer(), CountingTracer()
        a.engine.tracer, b.engine.tracer = here, there
        for _ in range(5):
            await a.carry(b)
        assert (here.frames, there.packets) == (5, 5)
        a.engine.tracer = b.engine.tracer = None
        await a.settle(b)
        assert (here.frames, there.packets) == (5, 5)

    run_sides(three, scenario)


def test_padding_ends_at_the_mtu_of_now(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        peer = peer_of(a, b)
        sizes = []
        for mtu in (1420, 1001):
            a.engine.mtu = mtu
            before = peer.tx_bytes
            await a.carry(b, 1001)
            sizes.append(peer.tx_bytes - before - MESSAGE_OVERHEAD)
        assert sizes == [1008, 1001]

    run_sides(three, scenario)


class FullSocket:
    """The UDP socket of a side that takes nothing while `is_full`."""

    def __init__(self, side: LoopbackSide, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self._send = side.udp.send
        monkeypatch.setattr(side.udp, "send", self.send)

    def send(
        self, batch: bytes | memoryview, stride: int, endpoint: Endpoint, tos: int = 0
    ) -> Sent:
        if self.is_full:
            return Sent(rest=len(batch))
        return self._send(batch, stride, endpoint, tos)


def left_by_the_pump(side: LoopbackSide, *frames: bytes, unsent: list[Unsent]) -> Outgoing:
    """What the pump reports that read these frames and may not send them."""
    arena, spans, start = side.engine._sender.arena, [], 0
    for frame in frames:
        arena[start : start + len(frame)] = frame
        spans.append((start, start + len(frame)))
        start += len(frame)
    return Outgoing(len(frames), 0, [], None, unsent, spans, 0, empty=True)


def test_frames_that_meet_a_full_socket_wait_each_as_it_is(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sealed into one buffer: the second may not be there before the first is gone."""

    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        await a.settle(c)
        frames = [packet(1, 2, 100), packet(1, 3, 200), packet(1, 2, 300)]
        udp = FullSocket(a, monkeypatch)
        answer = left_by_the_pump(a, *frames, unsent=[])
        a.engine._sender.finish_answer(answer, a.engine.clock())
        udp.is_full = False
        assert await b.take(2) == [frames[0], frames[2]]
        assert await c.take(1) == [frames[1]]
        assert a.engine.drops() == b.engine.drops() == c.engine.drops() == {}
        # And it goes on.
        await a.settle(b)

    run_sides(three, scenario)


@pytest.mark.skipif("native" not in datapath.available(), reason="no compiled datapath")
def test_what_the_socket_did_not_take_goes_before_the_frames_behind_it() -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide) -> None:
        await a.settle(b)
        first, second = packet(1, 2, 100), packet(1, 2, 200)
        peer, pump = peer_of(a, b), a.engine._sender._pump
        session = peer.keypairs.transport_for_sending(a.engine.clock())
        assert session is not None
        assert pump is not None
        out = bytearray(datapath.SEAL_OUT_SIZE)
        ((start, end, stride, ecn),) = session.seal(first, [(0, len(first))], 1420, out).batches
        unsent = Unsent(pump._number(peer), bytes(out[start:end]), stride, ecn)
        answer = left_by_the_pump(a, second, unsent=[unsent])
        a.engine._sender.finish_answer(answer, a.engine.clock())
        assert await b.take(2) == [first, second]

    with loopback_sides(2, "native") as sides:
        run_sides(sides, scenario)


def test_frames_in_a_row_to_one_peer_are_sealed_together(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        await a.settle(b)
        await a.settle(c)
        sealed = a.engine.load.sealed
        batches = sum(sealed.counts)
        frames = [packet(1, to, 100) for to in (2, 2, 2, 3, 3)]
        answer = left_by_the_pump(a, *frames, unsent=[])
        a.engine._sender.finish_answer(answer, a.engine.clock())
        assert await b.take(3) == frames[:3]
        assert await c.take(2) == frames[3:]
        assert sum(sealed.counts) - batches == 2

    run_sides(three, scenario)


@pytest.mark.parametrize(
    ("message", "reason", "is_bare"),
    [
        (b"\1\0\0\0" + b"x" * 128 + bytes(16), "bad_mac1", True),
        (b"\1\0\0\0" + b"x" * 144, "bad_mac1", False),
        (b"\2\0\0\0" + b"x" * 72 + bytes(16), "bad_mac1", False),
        (b"junk" * 10, "malformed", False),
    ],
    ids=["bare initiations", "initiations", "responses", "junk"],
)
def test_a_flood_is_noticed_as_what_it_is(
    three: Three, monkeypatch: pytest.MonkeyPatch, message: bytes, reason: str, is_bare: bool
) -> None:
    """The filter of a flood keeps one of two kinds out, so it has to be the right one."""

    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        counted: Counter[bool] = Counter()

        def count(messages: int, *, is_bare: bool) -> None:
            counted[is_bare] += messages

        monkeypatch.setattr(a.engine._handshakes, "count", count)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(40):
                stranger.sendto(message, ("127.0.0.1", a.udp.port))
            await dropped(a, reason, 40)
        # What they were is counted after the drop, before the next task gets its turn.
        assert +counted == {is_bare: 40}

    run_sides(three, scenario)


def test_datagrams_too_short_for_data_are_malformed_in_a_batch_as_well(three: Three) -> None:
    async def scenario(a: LoopbackSide, b: LoopbackSide, c: LoopbackSide) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            one = b"\4\0\0\0" + b"\x99" * 12
            segments = (kernel.SOL_UDP, kernel.UDP_SEGMENT, struct.pack("=H", len(one)))
            stranger.sendmsg([one * 5], [segments], 0, ("127.0.0.1", a.udp.port))
            await dropped(a, "malformed", 5)
        assert a.engine.drops() == {"malformed": 5}

    run_sides(three, scenario)
