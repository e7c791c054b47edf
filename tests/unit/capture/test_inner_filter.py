"""What the daemon tells a capture with a filter, and what it does not cost."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.capture import inner_filter
from tunnel.capture.inner_filter import InnerFilter, Ranges
from tunnel.control.broadcast import MAX_SUBSCRIBERS, TooManySubscribersError
from tunnel.packet.filter import Filter
from tunnel.trace.recorder import Recorder

ICMP = Filter.parse("icmp")
PING, OTHER = 1, 99


def frame(number: int, protocol: int, size: int = 84) -> bytes:
    """From a to b."""
    made = bytearray(packet(1, 2, size))
    made[19] = protocol
    made[15] = number
    return bytes(made)


async def told(ranges: Ranges, count: int) -> list[list[int]]:
    """Ranges that make `count` datagrams."""
    found: list[list[int]] = []
    while sum(number for _, _, number in found) < count:
        event = await anext(ranges)
        assert event.type == "carried"
        found += event.details["ranges"]
    return found


def captured(
    sides: Sides, scenario: Callable[[Side, Side, Ranges, Ranges], Awaitable[None]]
) -> None:
    """Run a scenario with a session and a capture of pings at both ends."""

    async def both(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        a.udp.sent.clear()
        b.tun.written.clear()
        with (
            InnerFilter(a.engine).subscribe(ICMP) as near,
            InnerFilter(b.engine).subscribe(ICMP) as far,
        ):
            await scenario(a, b, near, far)
        assert a.engine.inner_filter is a.engine._shared.tracer is None
        assert b.engine.inner_filter is b.engine._shared.tracer is None

    run(sides, both)


def test_ranges_of_counters_are_told_at_both_ends(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        a.tun.feed(*(frame(n, protocol) for n, protocol in enumerate([PING, PING, OTHER, PING])))
        ((index, *sent), later) = await told(near, 3)
        assert (sent, later) == ([1, 2], [index, 4, 1])
        assert await told(far, 3) == [[index, 1, 2], [index, 4, 1]]

    captured(sides, scenario)


@pytest.mark.parametrize("protocol", [PING, OTHER])
def test_frames_that_are_alike_are_sealed_together(
    sides: Sides, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.engine.sender.LONE_AFTER", float("inf"))

    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        a.tun.feed(*(frame(n, protocol) for n in range(21)))
        await until(lambda: len(b.tun.written) == 21)
        assert len(a.udp.sent) == 1
        if protocol == PING:
            assert [first for _, *first in await told(near, 21)] == [[1, 21]]

    captured(sides, scenario)


async def together(a: Side, b: Side, *frames: bytes) -> None:
    """Let b receive the datagrams of the frames as one batch."""
    b.udp.other, a.udp.other = None, None
    a.udp.sent.clear()
    before = len(b.tun.written)
    a.tun.feed(*frames)
    await until(lambda: not a.tun.incoming and not a.tun.ready.is_set())
    stride = a.udp.sent[0][1]
    b.udp.feed(b"".join(data for data, *_ in a.udp.sent), stride, a.udp.own)
    await until(lambda: len(b.tun.written) == before + len(frames))


@pytest.mark.parametrize("pings", [1, 2])
def test_what_came_together_is_told_apart_by_size(sides: Sides, pings: int) -> None:
    """Two large packets and a small one: the large ones are the pings, or the small one is."""
    first, last = (PING, OTHER) if pings == 2 else (OTHER, PING)

    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        await together(a, b, frame(1, first, 200), frame(2, first, 200), frame(3, last, 84))
        ((_, *told_of),) = await told(far, pings)
        assert told_of == ([1, 2] if pings == 2 else [3, 1])
        assert b.engine.inner_filter is not None
        assert not b.engine.inner_filter.opens_apart

    captured(sides, scenario)


def test_equal_packets_that_came_together_are_told_all_and_the_next_are_opened_apart(
    sides: Sides,
) -> None:
    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        mixed = [frame(n, kind) for n, kind in enumerate([PING, OTHER, PING])]
        await together(a, b, *mixed)
        assert [first for _, *first in await told(far, 3)] == [[1, 3]]
        await together(a, b, *mixed)
        assert [first for _, *first in await told(far, 2)] == [[4, 1], [6, 1]]

    captured(sides, scenario)


def test_what_is_of_no_filter_is_not_told(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        await together(a, b, *(frame(n, OTHER) for n in range(5)))
        await together(a, b, frame(6, PING))
        assert [first for _, *first in await told(far, 1)] == [[6, 1]]

    captured(sides, scenario)


def test_a_trace_at_the_same_time_has_its_records(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        with Recorder(a.engine).subscribe(Filter.parse("")) as records:
            a.tun.feed(*(frame(n, PING) for n in range(3)))
            counters = [(await anext(records)).details["batches"][0]["counter"] for _ in range(3)]
            assert counters == [1, 2, 3]
            assert [first for _, *first in await told(near, 3)] == [[1, 3]]
        a.tun.feed(frame(4, PING))
        assert [first for _, *first in await told(near, 1)] == [[4, 1]]

    captured(sides, scenario)


def test_what_waited_for_a_session_is_told_once_it_is_sealed(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        with InnerFilter(a.engine).subscribe(ICMP) as ranges:
            a.tun.feed(frame(1, PING))
            assert [first for _, *first in await told(ranges, 1)] == [[0, 1]]

    run(sides, scenario)


def test_dropped_and_unreadable_datagrams_carried_nothing(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Ranges, far: Ranges) -> None:
        a.tun.feed(frame(1, PING)[:40])  # shorter than its header says
        b.udp.feed(b"\4\0\0\0" + bytes(60), 64, a.udp.own)
        a.tun.feed(frame(2, PING))
        assert [first for _, *first in await told(near, 1)] == [[1, 1]]
        assert [first for _, *first in await told(far, 1)] == [[1, 1]]

    captured(sides, scenario)


def test_a_reader_that_sleeps_loses_ranges_and_then_its_place(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner_filter, "MAX_RANGES", 3)

    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        mixed = [frame(n, PING if n % 2 else OTHER) for n in range(20)]
        with InnerFilter(a.engine, lambda: now).subscribe(ICMP) as near:
            a.tun.feed(*mixed)
            await until(lambda: len(b.tun.written) == 21)
            assert len(await told(near, 3)) == 3
            lost = await anext(near)
            assert (lost.type, lost.details["count"]) == ("lost", 7)
            a.tun.feed(*mixed)
            await until(lambda: len(b.tun.written) == 41)
            assert a.engine.inner_filter is not None
            now += inner_filter.STALL + 1
            a.tun.feed(frame(1, PING))
            await until(lambda: a.engine.inner_filter is None)
            kinds = [event.type async for event in near]
            assert kinds == ["carried", "lost"]

    run(sides, scenario)


def test_captures_are_bounded(sides: Sides) -> None:
    a, _ = sides
    captures = InnerFilter(a.engine)
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_SUBSCRIBERS):
            stack.enter_context(captures.subscribe(ICMP))
        with pytest.raises(TooManySubscribersError), captures.subscribe(ICMP):
            pass
    assert a.engine.inner_filter is None


def test_ranges_are_gathered() -> None:
    async def main() -> None:
        ranges = Ranges(ICMP)
        ranges.add(7, 0, 1)
        assert (await anext(ranges)).details == {"ranges": [[7, 0, 1]]}
        for counter in range(1, 100):
            ranges.add(7, counter, 1)
            ranges.add(8, counter, 1)
        assert (await anext(ranges)).details == {"ranges": [[7, 1, 99], [8, 1, 99]]}
        ranges.end()
        assert [event async for event in ranges] == []

    trio.run(main)
