"""Rate limits and quotas: exact, in virtual time, in both directions and with both datapaths."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engines import Side, Sides, packet, run, until
from tests.support.loopback import LoopbackSide, loopback_sides, run_sides
from tests.support.packets import draw_frame
from tunnel import datapath
from tunnel.config.limits import Quota, RateLimit
from tunnel.datapath.errors import PacketRefusedError
from tunnel.datapath.split import split_untrusted
from tunnel.datapath.virtio import VIRTIO_NET_HDR_LEN, carried_untrusted
from tunnel.engine.common import Peer
from tunnel.engine.limits import BURST, LEAST_ROOM, LEAST_SHARE, Lane, QuotaUse, TokenBucket
from tunnel.engine.quota_file import QuotaFile
from tunnel.engine.sender import Sender
from tunnel.packet.headers import Headers
from tunnel.protocol import ProtocolDrop, PublicKey, QuotaReached

DAY = 86_400
LARGE = 65_000
NO_RATE, NO_QUOTA = RateLimit(), Quota()


def peer_of(side: Side | LoopbackSide) -> Peer:
    (peer,) = side.engine.interface.peers.values()
    return peer


def limit(
    side: Side | LoopbackSide, rate: RateLimit = NO_RATE, quota: Quota = NO_QUOTA
) -> PublicKey:
    peer = peer_of(side)
    side.engine.metering.set_limit(peer, rate, quota)
    return peer.public_key


def quota_of(side: LoopbackSide) -> QuotaUse:
    found = side.engine.metering.limit_of(peer_of(side))
    assert found is not None
    assert found.quota is not None
    return found.quota


def inner(frames: list[bytes]) -> int:
    return sum(carried_untrusted(frame)[1] for frame in frames)


# --- The bucket, by itself ------------------------------------------------------------------------


@given(
    rate=st.integers(1000, 10**9),
    steps=st.lists(st.tuples(st.floats(0, 0.2), st.integers(20, LARGE)), max_size=60),
)
def test_no_more_passes_than_rate_burst_and_one_frame(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    """Between any two moments, whatever is tried when."""
    bucket, now = TokenBucket(rate, rate * BURST, 0.0), 0.0
    passed: list[tuple[float, int]] = []
    for pause, size in steps:
        now += pause
        if bucket.take(size, now):
            passed.append((now, size))
        else:
            ready = bucket.ready_at(now)
            assert ready > now
            assert bucket.take(size, ready)
            now = ready
            passed.append((now, size))
    for first in range(len(passed)):
        total = 0
        for at, size in passed[first:]:
            total += size
            most = rate * (at - passed[first][0]) + rate * BURST + LARGE
            assert total <= most * (1 + 1e-9) + 1


def test_a_clock_that_stands_still_fills_nothing() -> None:
    bucket = TokenBucket(1000, 100, 5.0)
    assert bucket.take(100, 5.0)
    assert not bucket.take(1, 5.0)
    assert not bucket.take(1, 4.0)
    assert bucket.take(1, 5.1)


@given(st.integers(0, 2**32))
def test_a_frame_counts_what_its_packets_would(seed: int) -> None:
    """Whoever splits it, before or after."""
    frame = draw_frame(Random(seed))
    try:
        plains = split_untrusted(frame, 1420).plains
    except PacketRefusedError:
        return
    whole = Headers.parse(frame[VIRTIO_NET_HDR_LEN:])
    if whole is None or whole.size != len(frame) - VIRTIO_NET_HDR_LEN:
        return  # no TUN gives more than a packet
    sizes = [headers.size for plain in plains if (headers := Headers.parse(plain)) is not None]
    assert carried_untrusted(frame) == (len(plains), sum(sizes))


# --- Rates, in an engine --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["to", "from"])
def test_an_eager_sender_gets_the_rate_and_no_more(sides: Sides, way: str) -> None:
    rate = 8_000_000  # a million bytes a second
    size = 1000

    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        if way == "to":
            limit(a, RateLimit(to=rate))
        else:
            limit(b, RateLimit(from_=rate))
        start, before = trio.current_time(), len(b.tun.written)
        # Twice the rate for ten seconds.
        for _ in range(1000):
            a.tun.feed(*(packet(1, 2, size) for _ in range(20)))
            await trio.sleep(0.01)
        passed = inner(b.tun.written[before:])
        seconds = trio.current_time() - start
        assert passed <= 1_000_000 * (seconds + BURST) + size
        assert passed >= 1_000_000 * seconds
        limited = a if way == "to" else b
        held = limited.engine.metering.waiting_bytes
        dropped = limited.engine.drops()[ProtocolDrop.OVER_RATE]
        assert passed + held + dropped * size == 20_000 * size
        assert peer_of(limited).drops[ProtocolDrop.OVER_RATE] == dropped
        await trio.sleep(1)
        # What waited comes, in order, and nothing else.
        assert inner(b.tun.written[before:]) == passed + held

    run(sides, scenario)


def test_what_waits_keeps_its_order_and_large_frames_pass_whole(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        limit(a, RateLimit(80_000, 80_000))  # 10,000 bytes a second, 500 at once
        frames = [packet(1, 2, 1001 + n) for n in range(40)]
        a.tun.feed(*frames)
        await trio.sleep(5)
        assert b.tun.written[1:] == frames

    run(sides, scenario)


def test_a_rate_that_changes_drops_nothing_and_other_peers_do_not_wait(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        limit(a, RateLimit(8_000, 8_000))
        frames = [packet(1, 2, 1400 - n) for n in range(30)]
        a.tun.feed(*frames)
        await trio.sleep(0.5)
        assert len(b.tun.written) < 10
        limit(a)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(b.tun.written[1:]) == sorted(frames)
        assert a.engine.metering.limit_of(peer_of(a)) is None
        assert a.engine.drops() == {}

    run(sides, scenario)


def test_what_waits_when_the_peer_is_removed_goes_nowhere(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        key = limit(a, RateLimit(8_000, 8_000))
        a.tun.feed(*(packet(1, 2, 1400) for _ in range(10)))
        await trio.sleep(0.1)
        count = len(b.tun.written)
        a.engine.interface.remove_peer(key)
        a.engine.settle()
        assert a.engine.drops() == {ProtocolDrop.PEER_REMOVED: 1 + 10 - count}
        await trio.sleep(60)
        assert len(b.tun.written) == count

    run(sides, scenario)


def test_what_waits_is_bounded(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        limit(a, RateLimit(8_000, 8_000))
        a.tun.feed(*(packet(1, 2, 1400) for _ in range(1000)))
        await trio.sleep(0.1)
        assert LEAST_ROOM - 1400 <= a.engine.metering.waiting_bytes <= LEAST_ROOM

    run(sides, scenario)


# --- Quotas ---------------------------------------------------------------------------------------


@pytest.fixture(params=datapath.available())
def two(request: pytest.FixtureRequest) -> Iterator[list[LoopbackSide]]:
    with loopback_sides(2, request.param) as found:
        yield found


@pytest.mark.parametrize("size", [20, 64, 300, 1400, 65535])
def test_what_waits_takes_no_more_memory_than_its_room(size: int) -> None:
    lane = Lane(1, 0.0)
    assert lane.passes(size, 0.0)
    frame = memoryview(bytes(VIRTIO_NET_HDR_LEN + size))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        count = 0
        while lane.hold(frame, size):
            count += 1
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert count == LEAST_ROOM // max(size, LEAST_SHARE)
    assert taken <= LEAST_ROOM * 1.2
    while lane.release(1e9 * (count := count + 1)) is not None:
        pass
    assert lane.queued == 0


def test_a_quota_counts_both_ways_and_is_never_exceeded(two: list[LoopbackSide]) -> None:
    """Reached in the middle of traffic; the same bytes with each datapath."""

    async def scenario(a: LoopbackSide, b: LoopbackSide) -> None:
        await a.settle(b)
        limit(a, quota=Quota(10_000))
        for _ in range(4):
            await a.carry(b, 1000)
            await b.carry(a, 1000)
        use = quota_of(a)
        assert use.used == 8000
        a.give(*(packet(1, 2, 900) for _ in range(5)))
        assert len(await b.take(2)) == 2
        await until(lambda: a.engine.drops().get(ProtocolDrop.OVER_QUOTA) == 3)
        b.give(packet(2, 1, 300))
        await until(lambda: a.engine.drops().get(ProtocolDrop.OVER_QUOTA) == 4)
        assert use.used == 9800
        # A smaller one fits still, to the last byte.
        await b.carry(a, 200)
        assert use.used == 10_000
        reached = [event for event in a.events if isinstance(event, QuotaReached)]
        assert reached == [QuotaReached(peer_of(a).public_key, 10_000, 9800, "")]
        # The session goes on, and more of it lets packets pass at once.
        limit(a, quota=Quota(20_000))
        await a.carry(b, 1000)

    run_sides(two, scenario)


def test_a_quota_begins_anew_with_its_period_and_a_clock_set_back_does_not() -> None:
    monday = 1_767_571_200  # 2026-01-05
    file = QuotaFile()
    use = QuotaUse(Quota(100, "week"), b"k" * 32, file, monday + DAY)
    use.charge(60)
    assert use.begun == monday
    use.follow(monday - DAY)
    assert use.used == 60
    use.follow(monday + 7 * DAY - 1)
    assert use.used == 60
    use.follow(monday + 7 * DAY)
    assert (use.begun, use.used) == (monday + 7 * DAY, 0)
    use.charge(1)
    again = QuotaUse(Quota(100, "week"), b"k" * 32, file, monday)
    assert again.used == 1


def test_what_was_used_is_in_the_file_before_the_packet_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state" / "wg0.quota"
    file = QuotaFile(path)
    for key, used in ((b"a" * 32, 5), (b"b" * 32, 7), (b"a" * 32, 9)):
        file.get(key)
        file.set(key, 0, used)
        # As another process finds it, without a close.
        assert QuotaFile(path).get(key) == (0, used)
    assert path.stat().st_mode & 0o777 == 0o600
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    damaged = QuotaFile(path)
    assert damaged.get(b"a" * 32) == (0, 0)
    assert damaged.get(b"b" * 32) == (0, 7)
    damaged.set(b"a" * 32, 0, 11)
    damaged.close()
    assert QuotaFile(path).get(b"a" * 32) == (0, 11)


@pytest.mark.parametrize("path", ["/dev/full", "/proc/none/wg0.quota"])
def test_a_file_that_cannot_be_written_costs_no_count(path: str) -> None:
    file = QuotaFile(Path(path))
    file.get(b"a" * 32)
    file.set(b"a" * 32, 0, 5)
    assert file.problem.startswith(f"{path}: No ")
    assert file.get(b"a" * 32) == (0, 5)


def test_peers_without_a_limit_stay_with_the_pump(
    two: list[LoopbackSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one whose limit is gone comes back to it."""
    looked_at: list[memoryview] = []
    look = Sender._peer_for

    def note(self: Sender, view: memoryview, start: int, end: int) -> Peer | None:
        looked_at.append(view)
        return look(self, view, start, end)

    monkeypatch.setattr(Sender, "_peer_for", note)

    async def scenario(a: LoopbackSide, b: LoopbackSide) -> None:
        await a.settle(b)
        always = 0 if a.engine.datapath.pump is not None else 5

        async def looks() -> int:
            looked_at.clear()
            for _ in range(5):
                await a.carry(b)
            return len(looked_at)

        assert await looks() == always
        limit(b, quota=Quota(10**9))
        assert await looks() == always
        limit(a, quota=Quota(10**9))
        assert await looks() == 5
        assert quota_of(a).used == 5 * 84
        limit(a)
        await a.carry(b)
        assert await looks() == always

    run_sides(two, scenario)
