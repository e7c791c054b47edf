"""An engine whose interface goes down and up, changes its MTU, moves, is deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from tests.support.engines import Side, Sides, make_side, packet, run, until
from tunnel.datapath import SEAL_OUT_SIZE
from tunnel.datapath.reference import ReferenceSession
from tunnel.datapath.virtio import GSO_TCPV4, NEEDS_CSUM, VirtioNetHdr
from tunnel.device import link_monitor
from tunnel.engine.common import HANDSHAKES_TOGETHER
from tunnel.host.errors import HostError
from tunnel.host.watch import LinkEvent, LinkGone, LinkStatus
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted, TunError
from tunnel.io.link import TunLink
from tunnel.io.tun import Tun
from tunnel.protocol import HandshakeCompleted


def handshakes(side: Side) -> int:
    return sum(isinstance(event, HandshakeCompleted) for event in side.events)


def test_down_hears_and_says_nothing_and_up_starts_anew(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        b.engine.set_link_up(False)
        a.tun.feed(packet(1, 2))
        await until(lambda: b.engine.drops() == {"interface_down": 1})
        assert len(b.tun.written) == 1
        # What is set meanwhile waits.
        (peer,) = b.engine.interface.peers.values()
        b.udp.sent.clear()
        peer.set_persistent_keepalive(20, trio.current_time())
        b.engine.settle()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert b.udp.sent == []
        done = handshakes(a)
        b.engine.set_link_up(True)
        b.engine.set_link_up(True)
        # Not b's: until a has its confirmation it sends under keys that b has forgotten.
        await until(lambda: handshakes(a) > done)
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 2)

    run(sides, scenario)


def test_handshakes_waiting_and_under_way_when_it_goes_down_are_counted(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        initiation = a.udp.sent[0][0]
        handle = b.engine.interface.initiation_steps
        handled = 0

        def handle_the_first(
            messages: Sequence[tuple[bytes, Endpoint, bool, bytes | None]],
        ) -> Generator[int, float, None]:
            nonlocal handled
            handled = len(messages)
            steps = handle(messages)
            b.engine.set_link_up(False)
            return steps

        b.engine.interface.initiation_steps = handle_the_first  # type: ignore[method-assign,assignment]
        b.udp.feed(initiation * 20, 148, a.udp.own)
        await until(lambda: sum(b.engine.drops().values()) == 20)
        assert 0 < handled <= HANDSHAKES_TOGETHER
        assert b.engine.drops() == {"interface_down": 20}

    run(sides, scenario)


@dataclass
class FakeLink:
    """A TUN of which only the link is asked, and its events; each answer and event is once."""

    answers: list[TunLink | TunError] = field(default_factory=list)
    events: list[list[LinkEvent] | HostError] = field(default_factory=list)
    asked: int = 0
    limits: list[tuple[int, int]] = field(default_factory=list)
    refuse_limits: bool = False
    forwards: bool = False

    def link(self) -> TunLink:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else TunDeleted("gone")
        if isinstance(answer, TunError):
            raise answer
        return answer

    def limit_segments(self, index: int, segments: int) -> None:
        self.limits.append((index, segments))
        if self.refuse_limits:
            raise HostError("set gso_max_segs", str(segments), "not permitted")

    @contextlib.contextmanager
    def watch(self, index: int, *, netns: Path | None = None) -> Iterator[FakeEvents]:
        found = self.events.pop(0)
        if isinstance(found, HostError):
            raise found
        yield FakeEvents(found)


@dataclass
class FakeEvents:
    left: list[LinkEvent]

    def __aiter__(self) -> FakeEvents:
        return self

    async def __anext__(self) -> LinkEvent:
        await trio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


HERE = TunLink(name="wg0", ifindex=5, mtu=1420, up=True, here=True)
AWAY = replace(HERE, ifindex=2, here=False)


def follow(tun: FakeLink, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """What the engine was told until the device was gone: MTU, and whether it is up."""
    monkeypatch.setattr(link_monitor, "watch_link", tun.watch)
    monkeypatch.setattr(link_monitor, "limit_segments", tun.limit_segments)
    monkeypatch.setattr(link_monitor, "forwards", lambda _: tun.forwards)
    engine = make_side(1).engine
    engine.mtu = 1
    told: list[tuple[int, bool]] = []
    monkeypatch.setattr(engine, "set_link_up", lambda up: told.append((engine.mtu, up)))

    async def main() -> None:
        await link_monitor.follow_link(engine, cast(Tun, tun))

    with pytest.raises(TunDeleted):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    return told


def test_events_are_followed_where_the_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[LinkEvent] = [
        LinkStatus("wg0", 1420, True),
        LinkStatus("wg0", 34_736, True),
        LinkStatus("wg0", 34_736, False),
        LinkGone(moved=False),
    ]
    tun = FakeLink([HERE], [events])
    told = follow(tun, monkeypatch)
    assert told == [(1420, True), (1420, True), (34_736, True), (34_736, False)]
    # 45 datagrams of 1452 bytes fit the largest UDP packet, and one of 34,768.
    assert tun.limits == [(5, 45), (5, 1)]


def test_frames_that_cannot_be_fitted_are_carried_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tun = FakeLink([HERE], [[LinkGone(moved=False)]], refuse_limits=True)
    assert follow(tun, monkeypatch) == [(1420, True)]
    assert tun.limits == [(5, 45)]


def test_nothing_is_fitted_where_packets_are_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    tun = FakeLink([HERE], [[LinkGone(moved=False)]], forwards=True)
    assert follow(tun, monkeypatch) == [(1420, True)]
    assert tun.limits == []


def test_nothing_is_fitted_in_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    tun = FakeLink([AWAY], [])
    assert follow(tun, monkeypatch) == [(1420, True)]
    assert tun.limits == []


def test_device_is_asked_where_there_are_no_events(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    moved: list[LinkEvent] = [LinkStatus("wg0", 1420, True), LinkGone(moved=True)]
    away = [replace(AWAY, up=False), AWAY, replace(AWAY, mtu=9000)]
    tun = FakeLink([HERE, *away, HERE], [moved, [LinkGone(moved=False)]])
    assert follow(tun, monkeypatch) == [
        (1420, True),
        (1420, True),
        (1420, False),
        (1420, True),
        (9000, True),
        (1420, True),
    ]
    assert "in another network namespace" in caplog.text
    assert "back in our network namespace" in caplog.text


def test_what_cannot_be_asked_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = TunError("cannot enter the device's network namespace")
    failed = HostError.from_errno("watch link", "5", 12)
    tun = FakeLink([HERE, refused, refused, AWAY], [failed])
    assert follow(tun, monkeypatch) == [(1420, True), (1420, True)]
    assert caplog.text.count("stay as they were") == 1
    assert "watch link 5" in caplog.text


@pytest.mark.parametrize("mtu", [576, 1280, 1392, 1420, 8920])
def test_a_frame_of_the_kernel_is_one_batch_with_its_tail_too(mtu: int) -> None:
    """At 1392 the tail has no room behind as many datagrams as fit without one."""
    segments = link_monitor.fitting_segments(mtu)
    size = mtu - 40
    transport = bytes(12) + bytes([0x50]) + bytes(7) + bytes(segments * size)
    length = 20 + len(transport)
    header = b"\x45\0" + length.to_bytes(2, "big") + bytes(5) + b"\x06" + bytes(10)
    virtio = VirtioNetHdr(NEEDS_CSUM, GSO_TCPV4, 40, size, 20, 16).pack()
    frame = virtio + header + transport
    session = ReferenceSession(bytes(32), bytes(32), 1, 2, short_tails=True)
    sealed = session.seal(frame, [(0, len(frame))], mtu, bytearray(SEAL_OUT_SIZE))
    assert (len(sealed.batches), sealed.packets) == (1, segments + 1)
