"""The engine with two fake descriptors: what it does between a TUN and a UDP socket."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.engine import LONE_AFTER, EngineDrop
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted
from tunnel.protocol import HandshakeCompleted, KeypairExpired, PeerConnected


def test_staged_packets_arrive_in_order_once_a_session_stands(
    sides: Sides,
) -> None:
    async def scenario(a: Side, b: Side) -> None:
        frames = [packet(1, 2, 84 + n) for n in range(5)]
        a.tun.feed(*frames)
        await until(lambda: len(b.tun.written) == 5)
        assert b.tun.written == frames
        assert any(isinstance(event, HandshakeCompleted) for event in a.events)
        # Handshakes carry AF41, data does not.
        assert a.udp.sent[0][3] == 0x88
        assert a.udp.sent[-1][3] == 0

    run(sides, scenario)


def test_keepalives_and_rekeying_go_on_for_a_day(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        (peer,) = a.engine.interface.peers.values()
        peer.set_persistent_keepalive(25, a.engine.clock())
        a.engine.settle()
        await trio.sleep(86_400)
        completed = [e for e in a.events if isinstance(e, HandshakeCompleted)]
        assert all(event.is_initiator for event in completed)
        # A keepalive every 25 s, and the first one that finds the keypair 120 s old renews it.
        assert len(completed) == pytest.approx(86_400 / 125, rel=0.01)
        assert {type(event) for event in a.events} == {
            HandshakeCompleted,
            KeypairExpired,
            PeerConnected,
            PeerConnected,
        }
        assert len(a.udp.sent) == pytest.approx(86_400 / 25 + 2 * len(completed), rel=0.05)
        assert a.engine.drops() == b.engine.drops() == {}

    run(sides, scenario)


def test_full_socket_stops_the_reading_and_loses_nothing(
    sides: Sides,
) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        a.udp.room = 0
        frames = [packet(1, 2, 100 + n) for n in range(40)]
        a.tun.feed(*frames)
        await trio.testing.wait_all_tasks_blocked()
        assert len(b.tun.written) == 1
        assert a.tun.incoming
        a.udp.room = float("inf")
        a.udp.writable.set()
        await until(lambda: len(b.tun.written) == 41)
        assert b.tun.written[1:] == frames
        assert a.engine.drops() == {}

    run(sides, scenario)


async def quiet() -> None:
    """Long enough for the next packet to count as one that comes alone."""
    await trio.sleep(2 * LONE_AFTER)
    await trio.testing.wait_all_tasks_blocked()


def test_answer_of_the_kernel_leaves_in_the_wake_up_of_its_question(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.tun.answer = lambda frame: packet(2, 1, len(frame))
        for n in range(1, 4):
            await quiet()
            wakes = b.tun.wakes
            a.tun.feed(packet(1, 2, 100 + n))
            await until(lambda count=n: len(a.tun.written) == count)  # type: ignore[misc]
            assert b.tun.wakes == wakes
        assert a.tun.written == [packet(2, 1, 110 + n) for n in range(1, 4)]

    run(sides, scenario)


def test_staged_packets_leave_before_the_answer_to_what_let_them(sides: Sides) -> None:
    """A peer that had to come forward is sent what waited for it, and then what it is answered."""

    async def scenario(a: Side, b: Side) -> None:
        a.udp.delay = b.udp.delay = 2 * LONE_AFTER  # each datagram comes alone
        peer = next(iter(b.engine.interface.peers.values()))
        peer.set_endpoint(None)
        staged = [packet(2, 1, 200 + n) for n in range(5)]
        b.tun.feed(*staged)
        await until(lambda: peer.staged_frames == 5)
        await quiet()
        answer = packet(2, 1, 900)
        b.tun.answer = lambda _: answer
        a.tun.feed(packet(1, 2))
        await until(lambda: len(a.tun.written) == 6)
        assert a.tun.written == [*staged, answer]

    run(sides, scenario)


def test_only_what_is_written_to_the_tun_is_asked_for_its_answer(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.tun.refuse = True
        await quiet()
        b.tun.incoming.append(packet(2, 1))
        a.tun.feed(packet(1, 2))
        await until(lambda: b.engine.drops() == {"tun_down": 1})
        b.udp.feed(b"junk", 4, Endpoint(bytes([203, 0, 113, 5]), 9))
        await until(lambda: b.engine.drops().get("malformed"))
        await trio.testing.wait_all_tasks_blocked()
        assert b.tun.incoming

    run(sides, scenario)


def test_a_flood_is_not_taken_packet_by_packet_on_a_slow_machine(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.engine.sender.LONE_AFTER", -1.0)
    monkeypatch.setattr("tunnel.engine.receiver.LONE_AFTER", -1.0)

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        wakes = a.tun.wakes
        a.tun.feed(*(packet(1, 2) for _ in range(500)))
        await until(lambda: len(b.tun.written) == 501)
        assert a.tun.wakes - wakes < 100

    run(sides, scenario)


@pytest.mark.parametrize("first", ["frames", "answer"])
def test_nothing_overtakes_what_waits_for_the_socket(sides: Sides, first: str) -> None:
    """Whichever of the two tasks that send holds frames, the other leaves the TUN alone."""

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        await quiet()
        frames = [packet(2, 1, 100 + n) for n in range(30)]
        b.udp.room = 0
        if first == "frames":
            b.tun.feed(*frames[:20])
        else:
            b.tun.incoming.append(frames[0])  # as the kernel would: within the write
            a.tun.feed(packet(1, 2))
            await until(lambda: len(b.tun.written) == 2)
        await trio.testing.wait_all_tasks_blocked()
        b.tun.feed(*frames[20 if first == "frames" else 1 :])
        await quiet()
        received = len(b.tun.written)
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == received + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not a.tun.written
        b.udp.room = float("inf")
        b.udp.writable.set()
        await until(lambda: len(a.tun.written) == len(frames))
        assert a.tun.written == frames
        assert b.engine.drops() == {}

    run(sides, scenario)


def test_every_packet_that_goes_nowhere_is_counted(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        a.tun.feed(packet(1, 77), bytes(10) + b"\x00junk", bytes(10))
        # a's peer may only send from 10.0.0.1: this one claims another source.
        a.tun.feed(packet(9, 2))
        await until(lambda: b.engine.drops())
        assert a.engine.drops() == {"no_peer": 1, EngineDrop.NOT_IP: 2}
        assert b.engine.drops() == {"source_not_allowed": 1}
        assert len(b.tun.written) == 1

    run(sides, scenario)


def test_tun_that_refuses_or_is_busy_is_counted(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.tun.refuse = True
        a.tun.feed(packet(1, 2))
        await until(lambda: b.engine.drops() == {"tun_down": 1})
        b.tun.refuse, b.tun.busy = False, True
        a.tun.feed(packet(1, 2))
        await until(lambda: b.engine.drops() == {"tun_down": 1, EngineDrop.TUN_BUSY: 1})

    run(sides, scenario)


def test_junk_is_counted_and_never_queued(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        stranger = Endpoint(bytes([203, 0, 113, 5]), 9)
        a.udp.feed(b"", 1, stranger)
        a.udp.feed(b"\x01" * 148, 148, stranger)
        a.udp.feed(b"\x04\0\0\0" + bytes(40), 44, stranger)
        a.udp.feed(b"x" * 1000, 100, stranger)
        a.udp.feed(b"\x04" + b"\1" * 60, 61, stranger)
        await until(lambda: sum(a.engine.drops().values()) == 13)
        assert a.engine.drops()["unknown_session"] == 2
        assert a.engine.drops()["malformed"] == 11
        assert a.udp.sent == []

    run(sides, scenario)


def test_deleted_device_ends_the_engine(sides: Sides) -> None:
    a, _ = sides

    async def main() -> None:
        with trio.fail_after(5):
            a.tun.deleted = True
            a.tun.ready.set()
            await a.engine.run()

    with pytest.RaisesGroup(TunDeleted):
        trio.run(main)


@pytest.mark.parametrize("inner", [0, 2])
def test_what_a_router_has_marked_is_delivered_and_counted(sides: Sides, inner: int) -> None:
    """Also where the packet inside knows no ECN; only one that does gets the mark."""

    async def scenario(a: Side, b: Side) -> None:
        sent = bytearray(packet(1, 2))
        sent[11] = inner
        b.udp.ecn = 3
        a.tun.feed(bytes(sent))
        await until(lambda: b.tun.written)
        assert b.tun.written[0][11] == (3 if inner else 0)
        assert b.engine.load.congested == 1
        assert b.engine.drops() == {}

    run(sides, scenario)
