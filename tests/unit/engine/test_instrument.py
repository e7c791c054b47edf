"""The instrument seam with more than one that watches: a trace and a capture at the same time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.engines import Side, Sides, packet, run, until
from tunnel.engine.instrument import TracerGroup, joined


@dataclass
class Watcher:
    """Notes what it is called with. Lets `most` frames be sealed in one go."""

    most: int = 1000
    opens_apart: bool = False
    calls: list[str] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    sealed: list[int] = field(default_factory=list)

    def together(self, frames: memoryview, spans: list[Any]) -> int:
        return min(self.most, len(spans))

    def frame_sealed(self, peer: Any, session: Any, frame: Any, *rest: Any) -> None:
        self.calls.append("frame_sealed")
        self.sealed.append(rest[-1].packets)

    def datagrams_opened(self, peer: Any, opened: Any, out: bytearray) -> None:
        self.calls.append("datagrams_opened")
        self.opened.append(0 if opened is None else opened.packets)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_: self.calls.append(name)


def test_both_see_every_step_and_the_stricter_one_decides(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        first, second = Watcher(), Watcher(most=1)
        third, fourth = Watcher(opens_apart=True), Watcher()
        a.engine.tracer, a.engine.inner_filter = first, second
        b.engine.tracer, b.engine.inner_filter = third, fourth
        a.tun.feed(*(packet(1, 2, 100 + n) for n in range(6)))
        await until(lambda: len(b.tun.written) == 6)
        a.tun.feed(packet(1, 2), packet(1, 77), *(packet(1, 2) for _ in range(5)))
        await until(lambda: len(b.tun.written) == 12)
        assert first.calls == second.calls
        assert third.calls == fourth.calls
        assert set(first.calls) >= {"frame_read", "frames_staged", "frame_sealed", "sent"}
        assert set(third.calls) >= {"datagrams_received", "datagrams_opened", "packet_delivered"}
        assert set(first.sealed) == {1}
        assert set(third.opened) == {1}

    run(sides, scenario)


def test_one_that_leaves_is_not_called_again(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        stays, leaves = Watcher(), Watcher()
        a.engine.tracer, a.engine.inner_filter = leaves, stays
        a.tun.feed(packet(1, 2))
        await until(lambda: b.tun.written)
        seen = len(leaves.calls)
        a.engine.tracer = None
        a.tun.feed(packet(1, 2))
        await until(lambda: len(b.tun.written) == 2)
        assert len(leaves.calls) == seen < len(stays.calls)

    run(sides, scenario)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_as_few_as_needed_are_joined(count: int) -> None:
    watchers = [Watcher() for _ in range(count)]
    tracer = joined(None, *watchers, None)
    if count < 2:
        assert tracer is (watchers[0] if watchers else None)
    else:
        assert isinstance(tracer, TracerGroup)
