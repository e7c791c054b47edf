"""An implementation for the judge, in virtual time: our engine, on fakes of TUN and UDP."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from socket import AddressFamily
from typing import cast

import trio
import trio.testing

from tests.conformance.case import Case, Result
from tests.conformance.judge import Judge
from tests.conformance.subject import Wire
from tests.conformance.wire import Arrival
from tests.support.engines import FakeTun
from tests.support.uapi_device import ConfigurableUdp
from tunnel import datapath
from tunnel.control.uapi_grammar import Parser, UapiError, render_state
from tunnel.device import configure
from tunnel.engine import Engine
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp
from tunnel.io.udp_socket import SENT, Origin, Received, Sent, Skip

VNET_HEADER = 10
ADDRESS = Endpoint(bytes([127, 0, 0, 1]), 51820)


class InnerTun(FakeTun):
    """Hands every packet that is written to a channel."""

    def __init__(self, send: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        super().__init__()
        self._channel = send

    def write(self, frame: memoryview) -> bool:
        self._channel.send_nowait((trio.current_time(), bytes(frame[VNET_HEADER:])))
        return True


class WiredUdp(ConfigurableUdp):
    """Carries datagrams to and from wires, with the TOS byte."""

    def __init__(self) -> None:
        super().__init__(ADDRESS)
        self.wires: dict[tuple[bytes, int], MemoryWire] = {}
        self.arrived: deque[tuple[bytes, int, Endpoint, int]] = deque()
        self.on_arrival: Callable[[MemoryWire, bytes], None] = lambda wire, data: None

    async def wait_readable(self, family: AddressFamily) -> None:
        if family is not AddressFamily.AF_INET:
            await trio.sleep_forever()
        while not self.arrived:
            self.ready = trio.Event()
            await self.ready.wait()
        await trio.lowlevel.checkpoint()

    def arrive(self, wire: MemoryWire, data: bytes, stride: int, tos: int) -> None:
        self.on_arrival(wire, data)
        self.arrived.append((data, stride, Endpoint(wire.packed, wire.port), tos))
        self.ready.set()

    def receive(
        self, family: AddressFamily, buffer: bytearray, *, skip: Skip | None = None
    ) -> Received | None:
        while self.arrived:
            data, stride, source, tos = self.arrived.popleft()
            # A socket truncates what is longer than the buffer.
            data = data[: len(buffer)]
            buffer[: len(data)] = data
            if skip is None or not skip(buffer, len(data), source.sockaddr):
                origin = Origin(source.sockaddr, source.source)
                return Received(len(data), stride or 1, origin, tos & 3)
        return None

    def send(
        self, batch: bytes | memoryview, stride: int, endpoint: Endpoint, tos: int = 0
    ) -> Sent:
        wire = self.wires.get((endpoint.address, endpoint.port))
        if wire is not None:
            for start in range(0, len(batch), stride):
                wire.deliver(bytes(batch[start : start + stride]), tos)
        return SENT


class MemoryWire:
    """A socket of the judge's."""

    def __init__(self, udp: WiredUdp, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.packed = ip_address(address).packed
        self._udp = udp
        self._send, self._receive = trio.open_memory_channel[Arrival](100_000)

    async def send(self, data: bytes, *, tos: int = 0) -> None:
        self._udp.arrive(self, data, len(data), tos)
        await trio.lowlevel.checkpoint()

    async def send_many(self, data: bytes, count: int) -> None:
        for start in range(0, count, 64):
            self._udp.arrive(self, data * min(64, count - start), len(data), 0)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> list[Arrival]:
        return [await self._receive.receive()]

    def deliver(self, data: bytes, tos: int) -> None:
        self._send.send_nowait(Arrival(trio.current_time(), data, tos))

    def close(self) -> None:
        self._udp.wires.pop((self.packed, self.port), None)


class EngineSubject:
    """Our engine, device and UAPI."""

    def __init__(self) -> None:
        self.udp = WiredUdp()
        self._delivered, self.delivered = trio.open_memory_channel[tuple[float, bytes]](100_000)
        self._tun = InnerTun(self._delivered)
        self.engine = Engine(
            tun=cast(Tun, self._tun),
            udp=cast(Udp, self.udp),
            mtu=1420,
            path=datapath.load("python"),
            clock=trio.current_time,
        )

    async def uapi(self, request: str) -> str:
        operation, *lines = request.strip().splitlines()
        if operation == "get=1":
            state = render_state(self.engine.interface, self.udp.port, self.udp.fwmark)
            return "".join(state) + "errno=0\n\n"
        parser = Parser()
        try:
            for line in lines:
                parser.feed_untrusted(line)
            await configure.apply(self.engine, parser.changes)
        except UapiError as error:
            return f"errno={-error.errno}\n\n"
        return "errno=0\n\n"

    async def inject(self, inner: bytes) -> None:
        self._tun.feed(bytes(VNET_HEADER) + inner)
        await trio.lowlevel.checkpoint()

    async def set_link(self, *, up: bool) -> None:
        self.engine.set_link_up(up)

    async def open_wire(self, address: str, port: int = 0) -> Wire:
        wire = MemoryWire(self.udp, address, port or 40_000 + len(self.udp.wires))
        self.udp.wires[wire.packed, wire.port] = wire
        return wire

    def check(self) -> None:
        """An engine that fails takes the test with it."""


def judge_engine(cases: Iterable[Case]) -> list[Result]:
    """What the judge says of our engine."""

    @asynccontextmanager
    async def make_subject(number: int) -> AsyncIterator[EngineSubject]:
        subject = EngineSubject()
        async with trio.open_nursery() as nursery:
            await nursery.start(subject.engine.run)
            yield subject
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(1000.0)  # as if up for a while: the first packet is not one of many
    judge = Judge(make_subject, attempts=1)
    return trio.run(judge.run, cases, clock=clock)
