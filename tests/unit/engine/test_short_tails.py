"""On a wire that loses batches of equally long datagrams, as with the kernels that damage them."""

from __future__ import annotations

import trio
import trio.testing

from tests.support.engines import Side, joined, make_side, packet, run, until

FRAMES = [packet(1, 2) for _ in range(5)]
MANY = [packet(1, 2) for _ in range(200)]


def test_equal_batches_are_lost_without_a_tail() -> None:
    """The wire of the other tests is one that loses them; packets alone pass."""

    async def scenario(a: Side, b: Side) -> None:
        a.udp.damages_equal = True
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 1)
        a.tun.feed(*FRAMES)
        await until(lambda: not a.tun.incoming)
        await trio.sleep(1)
        a.tun.feed(packet(1, 2, 85))
        await until(lambda: len(b.tun.written) == 2)
        assert b.tun.written[1] == packet(1, 2, 85)

    run(joined(make_side(1), make_side(2)), scenario)


def test_all_arrive_with_a_tail() -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.udp.damages_equal = True
        # These wait for the handshake, each in a batch of its own.
        a.tun.feed(*FRAMES)
        await until(lambda: len(b.tun.written) == len(FRAMES))
        a.tun.feed(*MANY)
        await until(lambda: len(b.tun.written) == len(FRAMES) + len(MANY))
        assert (a.engine.drops(), b.engine.drops()) == ({}, {})
        batches = [(len(data), stride) for data, stride, *_ in a.udp.sent if len(data) > stride]
        assert batches
        assert all(size % stride == 32 for size, stride in batches)

    run(joined(make_side(1, short_tails=True), make_side(2)), scenario)


def test_a_packet_alone_gets_no_tail() -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 1)
        await trio.testing.wait_all_tasks_blocked()
        assert [len(data) for data, *_ in a.udp.sent] == [148, 128]

    run(joined(make_side(1, short_tails=True), make_side(2)), scenario)
