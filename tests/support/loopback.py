"""Engines on real descriptors, without root: UDP on loopback, a pair of sockets as each TUN."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import cast

import trio

from tests.support.engines import packet
from tunnel import datapath
from tunnel.config import PrivateKey
from tunnel.engine import Engine
from tunnel.engine.common import Peer
from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun, TunOffload
from tunnel.io.udp import Udp
from tunnel.protocol import Event

LOOPBACK = socket.inet_aton("127.0.0.1")
PATIENCE = 20.0


class SocketTun:
    """A TUN whose kernel is the test: `kernel` is the other end of a pair of sockets."""

    tap = False
    vnet_hdr = True
    offloads = TunOffload.NONE

    def __init__(self) -> None:
        self.kernel, self._own = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.setblocking(False)
        self._own.setblocking(False)
        self.drops: Counter[IoDrop] = Counter()
        self.reads = 0

    def fileno(self) -> int:
        return self._own.fileno()

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._own)

    def read(self, buffer: memoryview, start: int = 0) -> int:
        self.reads += 1
        try:
            return self._own.recv_into(buffer[start:])
        except BlockingIOError:
            return 0

    def write(self, frame: memoryview) -> bool:
        try:
            self._own.send(frame)
        except BlockingIOError:
            return False
        return True

    def handle_read_error(self, error: OSError) -> None:
        raise error

    def close(self) -> None:
        self.kernel.close()
        self._own.close()


@dataclass
class LoopbackSide:
    """An engine, and what its test needs of it. Its inner address is 10.0.0.`number`."""

    number: int
    tun: SocketTun
    udp: Udp
    engine: Engine
    events: list[Event] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(LOOPBACK, self.udp.port)

    def add(self, other: LoopbackSide) -> Peer:
        """Make the other one a peer, which has its own address."""
        public = other.engine.interface.public_key
        assert public is not None
        peer = self.engine.interface.add_peer(public)
        peer.set_endpoint(other.endpoint)
        network = IPv4Network(f"10.0.0.{other.number}/32")
        self.engine.interface.allowed_ips.insert(network, peer)
        return peer

    def give(self, *frames: bytes) -> None:
        """The kernel routes frames into the tunnel."""
        for frame in frames:
            self.tun.kernel.send(frame)

    async def take(self, count: int) -> list[bytes]:
        """The next frames that come out of the tunnel, waited for."""
        frames: list[bytes] = []
        with trio.fail_after(PATIENCE):
            while len(frames) < count:
                await trio.lowlevel.wait_readable(self.tun.kernel)
                with contextlib.suppress(BlockingIOError):
                    frames.append(self.tun.kernel.recv(1 << 17))
        return frames

    async def carry(self, other: LoopbackSide, size: int = 84) -> None:
        """One packet to the other, which gets it."""
        frame = packet(self.number, other.number, size)
        self.give(frame)
        assert await other.take(1) == [frame]

    async def settle(self, other: LoopbackSide) -> None:
        """Packets to and fro, until nothing has to be learned any more."""
        for _ in range(4):
            await self.carry(other)
            await other.carry(self)


@contextlib.contextmanager
def loopback_sides(count: int, path: str) -> Iterator[list[LoopbackSide]]:
    """So many engines with the datapath `path`, all of them peers of each other."""
    sides = []
    with contextlib.ExitStack() as stack:
        for number in range(1, count + 1):
            tun = SocketTun()
            stack.callback(tun.close)
            udp = stack.enter_context(Udp.open(ipv6=False))
            events: list[Event] = []
            engine = Engine(
                tun=cast(Tun, tun),
                udp=udp,
                mtu=1420,
                path=datapath.load(path),
                on_event=events.append,
            )
            key = PrivateKey.from_random(bytes([number]) * 32)
            engine.interface.set_private_key(key, engine.clock())
            sides.append(LoopbackSide(number, tun, udp, engine, events))
        for side in sides:
            for other in sides:
                if other is not side:
                    side.add(other)
        yield sides


def run_sides(sides: Sequence[LoopbackSide], scenario: Callable[..., Awaitable[None]]) -> None:
    """Call `scenario` with all sides while their engines run."""

    async def main() -> None:
        with trio.fail_after(3 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for side in sides:
                    await nursery.start(side.engine.run)
                await scenario(*sides)
                nursery.cancel_scope.cancel()

    trio.run(main)
