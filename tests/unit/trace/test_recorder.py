"""What the daemon tells a trace, and that it tells nothing without one."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.config.limits import Quota, RateLimit
from tunnel.control.broadcast import MAX_SUBSCRIBERS, QUEUE, Subscription, TooManySubscribersError
from tunnel.packet.filter import Filter
from tunnel.trace.recorder import STALL, Recorder

ALL = Filter.parse("")


async def told(subscription: Subscription, count: int) -> list[tuple[str, dict[str, Any]]]:
    return [
        (event.type, event.details) for event in [await anext(subscription) for _ in "x" * count]
    ]


def traced(
    sides: Sides, scenario: Callable[[Side, Side, Subscription, Subscription], Awaitable[None]]
) -> None:
    async def both(a: Side, b: Side) -> None:
        with Recorder(a.engine).subscribe(ALL) as near, Recorder(b.engine).subscribe(ALL) as far:
            await scenario(a, b, near, far)
        assert a.engine.tracer is None
        assert b.engine.tracer is None

    run(sides, both)


def test_off_there_is_nobody_to_tell(sides: Sides) -> None:
    a, _ = sides
    traces = Recorder(a.engine)
    assert a.engine.tracer is None
    with traces.subscribe(ALL):
        tracer = a.engine.tracer
        with traces.subscribe(ALL):
            assert a.engine.tracer is tracer
        assert a.engine.tracer is tracer
    assert a.engine.tracer is None


def test_staged_then_sealed_then_opened(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        a.tun.feed(packet(1, 2))
        (_, staged), (kind, sent) = await told(near, 2)
        ((_, received),) = await told(far, 1)
        assert kind == "out"
        assert staged["staged"] is True
        assert staged["packet"] == sent["packet"] == received["packet"]
        assert sent["packet"] == packet(1, 2)[10:50].hex()
        assert (staged["size"], sent["size"], received["size"]) == (84, 84, 84)
        assert sent["read_at"] is None
        assert sent["batches"] == [{"counter": 0, "packets": 1, "size": 128, "ecn": 0}]
        assert (received["index"], received["counter"]) == (sent["index"], 0)
        assert sent["allowed_ip"] == "10.0.0.2/32"
        assert received["allowed_ip"] == "10.0.0.1/32"
        assert sent["endpoint"] == "192.0.2.2:51820"
        assert sent["drop"] is received["drop"] is None

    traced(sides, scenario)


def test_frames_read_together_have_counters_of_their_own(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        a.tun.feed(packet(1, 2))
        await told(near, 2)
        await told(far, 1)
        a.tun.feed(*(packet(1, 2, 100 + n) for n in range(5)))
        sent = [details for _, details in await told(near, 5)]
        assert [details["batches"][0]["counter"] for details in sent] == [1, 2, 3, 4, 5]
        assert [details["size"] for details in sent] == [100, 101, 102, 103, 104]
        for details in sent:
            names = ("read_at", "session_at", "sealed_at", "sending_at")
            times = [details[name] for name in names]
            assert times == sorted(set(times)), "each has a stamp of its own"
        received = [details for _, details in await told(far, 5)]
        assert [details["counter"] for details in received] == [1, 2, 3, 4, 5]
        for details in received:
            times = [details[name] for name in ("received_at", "opened_at", "allowed_at")]
            assert times == sorted(set(times))

    traced(sides, scenario)


def test_a_batch_from_the_socket_is_told_by_its_first_counter(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        a.tun.feed(packet(1, 2))
        await told(far, 1)
        b.udp.other = None
        a.udp.other = None
        a.tun.feed(packet(1, 2), packet(1, 2))
        await until(lambda: len(a.udp.sent) >= 4)
        together = b"".join(data for data, *_ in a.udp.sent[-2:])
        b.udp.feed(together, 128, a.udp.own)
        received = [details for _, details in await told(far, 2)]
        assert [(details["batch"], details["counter"]) for details in received] == [(1, 1), (1, 2)]
        # The same again is a replay, and what was inside nobody knows.
        b.udp.feed(together, 128, a.udp.own)
        again = [details for _, details in await told(far, 2)]
        assert [(details["drop"], details["packet"]) for details in again] == [("replay", None)] * 2

    traced(sides, scenario)


def test_drops_are_told_with_their_reason(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        a.tun.feed(packet(1, 2))
        await told(near, 2)
        await told(far, 1)
        a.tun.feed(packet(1, 77))
        ((_, nobody),) = await told(near, 1)
        assert (nobody["drop"], nobody["peer"], nobody["allowed_ip"]) == ("no_peer", None, None)
        a.tun.feed(packet(9, 2))
        ((_, stranger),) = await told(far, 1)
        assert stranger["drop"] == "source_not_allowed"
        assert "allowed_at" not in stranger
        b.tun.busy = True
        a.tun.feed(packet(1, 2))
        ((_, busy),) = await told(far, 1)
        assert busy["drop"] == "tun_busy"
        b.udp.feed(b"\4\0\0\0" + bytes(60), 64, a.udp.own)
        ((_, unknown),) = await told(far, 1)
        assert unknown["drop"] == "no_session"

    traced(sides, scenario)


def test_what_a_limit_drops_is_told_with_its_peer(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        (peer,) = a.engine.interface.peers.values()
        a.engine.metering.set_limit(peer, RateLimit(), Quota(size=1))
        a.tun.feed(packet(1, 2))
        ((kind, over),) = await told(near, 1)
        assert (kind, over["drop"], over["peer"]) == (
            "out",
            "over_quota",
            peer.public_key.to_base64(),
        )

    traced(sides, scenario)


def test_only_the_packets_of_the_filter_are_told(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        traces = Recorder(a.engine)
        with (
            traces.subscribe(Filter.parse("icmp")) as pings,
            traces.subscribe(ALL) as everything,
        ):
            a.tun.feed(packet(1, 2))
            assert len(await told(everything, 2)) == 2
            with trio.move_on_after(0.05) as waiting:
                await anext(pings)
            assert waiting.cancelled_caught

    run(sides, scenario)


def test_a_reader_that_sleeps_loses_records_and_is_told_so(sides: Sides) -> None:
    async def scenario(a: Side, b: Side, near: Subscription, far: Subscription) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        a.tun.feed(*(packet(1, 2) for _ in range(QUEUE + 50)))
        await until(lambda: len(b.tun.written) == QUEUE + 51)
        kinds = [kind for kind, _ in await told(near, QUEUE + 1)]
        assert kinds[-1] == "lost"

    traced(sides, scenario)


def test_traces_are_bounded(sides: Sides) -> None:
    a, _ = sides
    traces = Recorder(a.engine)
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_SUBSCRIBERS):
            stack.enter_context(traces.subscribe(ALL))
        with pytest.raises(TooManySubscribersError), traces.subscribe(ALL):
            pass
    assert a.engine.tracer is None


def test_the_time_of_a_trace_ends_though_its_reader_sleeps(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        traces = Recorder(a.engine, lambda: now)
        with traces.subscribe(ALL, seconds=30) as subscription:
            a.tun.feed(packet(1, 2))
            await told(subscription, 2)
            now = 131.0
            assert a.engine.tracer is not None
            a.tun.feed(packet(1, 2))
            await until(lambda: a.engine.tracer is None)
            with pytest.raises(StopAsyncIteration):
                await anext(subscription)

    run(sides, scenario)


def test_a_reader_that_stopped_is_let_go_of(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        traces = Recorder(a.engine, lambda: now)
        with traces.subscribe(ALL) as stopped:
            a.tun.feed(packet(1, 2))
            await until(lambda: b.tun.written)
            a.tun.feed(*(packet(1, 2) for _ in range(QUEUE)))
            await until(lambda: len(b.tun.written) == QUEUE + 1)
            assert a.engine.tracer is not None
            now += STALL + 1
            a.tun.feed(packet(1, 2))
            await until(lambda: a.engine.tracer is None)
            kinds = [kind for kind, _ in await told(stopped, QUEUE + 1)]
            assert kinds == ["out"] * QUEUE + ["lost"]
        with traces.subscribe(ALL):
            assert a.engine.tracer is not None

    run(sides, scenario)


def test_a_reader_that_is_only_slow_is_kept(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        traces = Recorder(a.engine, lambda: now)
        with traces.subscribe(ALL) as slow:
            a.tun.feed(packet(1, 2))
            await until(lambda: b.tun.written)
            for _ in range(3):
                b.tun.written.clear()
                a.tun.feed(*(packet(1, 2) for _ in range(QUEUE)))
                await until(lambda: len(b.tun.written) == QUEUE)
                await told(slow, 10)
                now += STALL - 1
            assert a.engine.tracer is not None

    run(sides, scenario)


def test_more_records_than_the_rate_are_told_as_lost(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        traces = Recorder(a.engine, lambda: now)
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        with traces.subscribe(ALL, rate=10) as few:
            a.tun.feed(*(packet(1, 2) for _ in range(30)))
            await until(lambda: len(b.tun.written) == 31)
            assert [kind for kind, _ in await told(few, 11)] == ["out"] * 10 + ["lost"]
            now += 1
            a.tun.feed(packet(1, 2))
            ((kind, _),) = await told(few, 1)
            assert kind == "out"

    run(sides, scenario)


def test_forged_datagrams_leave_room_for_packets(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        now = 100.0
        traces = Recorder(b.engine, lambda: now)
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        with traces.subscribe(ALL, rate=50) as far:
            for _ in range(100):
                b.udp.feed(b"\4\0\0\0" + bytes(60), 64, a.udp.own)
            a.tun.feed(packet(1, 2))
            await until(lambda: len(b.tun.written) == 2)
            details = [details for kind, details in await told(far, 6) if kind == "in"]
            assert [each["drop"] for each in details] == ["no_session"] * 5 + [None]

    run(sides, scenario)


def test_after_a_trace_batches_are_batches_again(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures after a trace are those of before: no frame is handled by itself any more."""

    monkeypatch.setattr("tunnel.engine.sender.LONE_AFTER", float("inf"))

    async def batches(a: Side, b: Side) -> tuple[int, int]:
        """As how many batches eight frames are sealed, and as how many they are opened."""
        loads = (a.engine.load.sealed, b.engine.load.opened)
        before = [(sum(load.counts), load.total) for load in loads]
        a.tun.feed(*(packet(1, 2, 1400) for _ in range(8)))
        wanted = [total + 8 for _, total in before]
        await until(lambda: [load.total for load in loads] == wanted)
        sealed, opened = (
            sum(load.counts) - count for load, (count, _) in zip(loads, before, strict=True)
        )
        return sealed, opened

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        assert await batches(a, b) == (1, 1)
        with Recorder(a.engine).subscribe(ALL), Recorder(b.engine).subscribe(ALL):
            assert await batches(a, b) == (8, 8)
        assert a.engine.tracer is None
        assert b.engine.tracer is None
        assert await batches(a, b) == (1, 1)

    run(sides, scenario)
