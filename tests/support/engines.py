"""Two engines on fake devices, joined by a list. Their clock is trio's, which tests run ahead."""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, TypeAlias, cast

import trio
import trio.testing

from tunnel import datapath
from tunnel.config import PrivateKey
from tunnel.engine import Engine
from tunnel.engine.common import Clock
from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted, TunMergeRefused, TunWriteDropped
from tunnel.io.link import TunLink
from tunnel.io.tun import ALL_OFFLOADS, Tun, TunOffload
from tunnel.io.udp import Udp
from tunnel.io.udp_socket import SENT, Origin, Received, Sent, Skip
from tunnel.linux.bpf import Instruction
from tunnel.protocol import Event

V4 = socket.AF_INET


@dataclass
class FakeTun:
    """A TUN whose frames come from and go to lists."""

    offloads: TunOffload = ALL_OFFLOADS
    tap: bool = False
    drops: Counter[IoDrop] = field(default_factory=Counter)
    incoming: deque[bytes] = field(default_factory=deque)
    written: list[bytes] = field(default_factory=list)
    ready: trio.Event = field(default_factory=trio.Event)
    refuse: bool = False
    busy: bool = False
    refuse_merged: bool = False
    refuse_single: bool = False
    deleted: bool = False
    wakes: int = 0
    answer: Callable[[bytes], bytes | None] = lambda _: None

    def link(self) -> TunLink:
        return TunLink("wg0", 7, 1420, up=True, here=True)

    def feed(self, *frames: bytes) -> None:
        self.incoming.extend(frames)
        self.ready.set()

    async def wait_readable(self) -> None:
        while not (self.incoming or self.deleted):
            self.ready = trio.Event()
            await self.ready.wait()
        await trio.lowlevel.checkpoint()
        self.wakes += 1

    def read(self, buffer: bytearray, start: int = 0) -> int:
        if self.deleted:
            raise TunDeleted("the TUN device was deleted")
        if not self.incoming:
            return 0
        frame = self.incoming.popleft()
        buffer[start : start + len(frame)] = frame
        return len(frame)

    def write(self, frame: memoryview) -> bool:
        if self.refuse:
            self.drops[IoDrop.TUN_DOWN] += 1
            raise TunWriteDropped(IoDrop.TUN_DOWN)
        if self.refuse_merged and frame[1]:
            raise TunMergeRefused("the TUN device refused merged packets")
        if self.refuse_single and not frame[1]:
            self.drops[IoDrop.TUN_REFUSED] += 1
            raise TunWriteDropped(IoDrop.TUN_REFUSED)
        if self.busy:
            return False
        self.written.append(bytes(frame))
        if (answer := self.answer(bytes(frame))) is not None:
            self.incoming.append(answer)
        return True


@dataclass
class FakeUdp:
    """UDP between two engines in memory; `room` bytes fit before it would block; after `delay`
    seconds a datagram wakes its receiver. With `damages_equal` no batch of several datagrams
    arrives if all are equally long, as with Linux 7.0. With `others`, by their address, there are
    more than two.
    """

    own: Endpoint
    other: FakeUdp | None = None
    others: dict[bytes, FakeUdp] = field(default_factory=dict)
    drops: Counter[IoDrop] = field(default_factory=Counter)
    incoming: deque[tuple[bytes, int, Endpoint]] = field(default_factory=deque)
    sent: list[tuple[bytes, int, Endpoint, int]] = field(default_factory=list)
    ready: trio.Event = field(default_factory=trio.Event)
    writable: trio.Event = field(default_factory=trio.Event)
    room: float = float("inf")
    damages_equal: bool = False
    delay: float = 0.0
    ecn: int = 0
    full: float = 0.0
    filters: list[list[Instruction]] = field(default_factory=list)

    async def wait_readable(self, family: socket.AddressFamily) -> None:
        if family != V4:
            await trio.sleep_forever()
        while not self.incoming:
            self.ready = trio.Event()
            await self.ready.wait()
        await trio.sleep(self.delay)

    def queued_part(self) -> float:
        return self.full

    def set_filter(self, program: Sequence[Instruction]) -> None:
        self.filters.append(list(program))

    async def wait_writable(self, family: socket.AddressFamily) -> None:
        await self.writable.wait()

    def feed(self, data: bytes, stride: int, source: Endpoint) -> None:
        self.incoming.append((data, stride, source))
        self.ready.set()

    def receive(
        self, family: socket.AddressFamily, buffer: bytearray, *, skip: Skip | None = None
    ) -> Received | None:
        while self.incoming:
            data, stride, source = self.incoming.popleft()
            buffer[: len(data)] = data
            if skip is None or not skip(buffer, len(data), source.sockaddr):
                return Received(len(data), stride, Origin(source.sockaddr, source.source), self.ecn)
        return None

    def send(
        self, batch: bytes | memoryview, stride: int, endpoint: Endpoint, tos: int = 0
    ) -> Sent:
        data = bytes(batch)
        if len(data) > self.room:
            return Sent(rest=len(data))
        self.sent.append((data, stride, endpoint, tos))
        other = self.others.get(endpoint.address, self.other)
        damaged = self.damages_equal and len(data) > stride and len(data) % stride == 0
        if other is not None and not damaged:
            other.feed(data, stride, self.own)
        return SENT


@dataclass
class Side:
    tun: FakeTun
    udp: FakeUdp
    engine: Engine
    events: list[Event]


Sides: TypeAlias = tuple[Side, Side]


def make_side(
    number: int,
    clock: Clock = trio.current_time,
    *,
    tap: bool = False,
    short_tails: bool = False,
    path: datapath.Datapath | None = None,
) -> Side:
    tun = FakeTun(tap=tap)
    udp = FakeUdp(Endpoint(bytes([192, 0, 2, number]), 51820))
    events: list[Event] = []
    engine = Engine(
        tun=cast(Tun, tun),
        udp=cast(Udp, udp),
        mtu=1420,
        path=path or datapath.load("python"),
        clock=clock,
        on_event=events.append,
        short_tails=short_tails,
    )
    key = PrivateKey.from_random(bytes([number]) * 32)
    engine.interface.set_private_key(key, 0.0)
    return Side(tun, udp, engine, events)


def joined(a: Side, b: Side) -> Sides:
    """Both, as peers of each other: 10.0.0.1 is at `a`, 10.0.0.2 at `b`."""
    a.udp.other, b.udp.other = b.udp, a.udp
    for side, other, number in ((a, b, 2), (b, a, 1)):
        public = other.engine.interface.public_key
        assert public is not None
        peer = side.engine.interface.add_peer(public)
        peer.set_endpoint(other.udp.own)
        side.engine.interface.allowed_ips.insert(IPv4Network(f"10.0.0.{number}/32"), peer)
    return a, b


def packet(source: int, destination: int, size: int = 84) -> bytes:
    """A frame with an IPv4 packet of `size` bytes and protocol 99."""
    header = bytes([0x45, 0]) + size.to_bytes(2, "big") + bytes(4) + bytes([64, 99, 0, 0])
    addresses = bytes([10, 0, 0, source, 10, 0, 0, destination])
    return bytes(10) + header + addresses + bytes(size - 20)


def run(sides: Sequence[Side], scenario: Callable[..., Awaitable[None]]) -> None:
    """Call `scenario` with all sides while their engines run."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with trio.open_nursery() as nursery:
                for side in sides:
                    await nursery.start(side.engine.run)
                await scenario(*sides)
                nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(1000.0)  # as if up for a while: the first packet is not one of many
    trio.run(main, clock=clock)


async def until(condition: Callable[[], Any]) -> None:
    """Let the tasks take turns, and time pass while they do not bring it about."""
    turns = 0
    with trio.fail_after(10):
        while not condition():
            turns += 1
            if turns % 50:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(0.001)
