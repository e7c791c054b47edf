"""An engine without descriptors, served by the UAPI on a socket in a temporary folder."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import trio

from tests.support.engines import FakeUdp, make_side
from tunnel.control import uapi
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.device.uapi import EngineDevice
from tunnel.engine import Engine
from tunnel.io.errors import UdpError
from tunnel.io.udp import Udp

PUBLIC_1, PUBLIC_2 = "11" * 32, "22" * 32
PRIVATE = "40" * 32
ZERO = "00" * 32


class ConfigurableUdp(FakeUdp):
    """A FakeUdp with a port and a mark; some ports are taken, and marks may be refused."""

    port = 51820
    fwmark = 0
    gso = gro = True
    taken: frozenset[int] = frozenset({7777})
    may_mark = True

    def set_port(self, port: int) -> None:
        if port in self.taken:
            raise UdpError(f"UDP port {port} is taken", errno.EADDRINUSE)
        self.port = port or 40000

    def set_fwmark(self, fwmark: int) -> None:
        if not self.may_mark:
            raise UdpError("needs CAP_NET_ADMIN", errno.EPERM)
        self.fwmark = fwmark


def make_engine() -> tuple[Engine, ConfigurableUdp]:
    engine = make_side(1).engine
    udp = ConfigurableUdp(cast(FakeUdp, engine.udp).own)
    engine.udp = cast(Udp, udp)
    return engine, udp


Talk = Callable[[bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def served(engine: Engine, folder: Path) -> AsyncIterator[Talk]:
    """Gives a function that sends bytes on a connection of its own, and returns all answers."""
    path = folder / "wg0.sock"
    listener = bind_unix_socket(path)

    async def talk(data: bytes) -> bytes:
        async with await trio.open_unix_socket(str(path)) as stream:
            answer = b""
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await stream.send_all(data)
                        await stream.send_eof()

                nursery.start_soon(send)
                with contextlib.suppress(trio.BrokenResourceError):
                    while part := await stream.receive_some(65536):
                        answer += part
            return answer

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uapi.serve, listener, EngineDevice(lambda: engine, trio.Lock()))
            yield talk
            nursery.cancel_scope.cancel()


def exchange(engine: Engine, folder: Path, *requests: str) -> list[str]:
    """Send each request on a connection of its own; the answers."""

    async def main() -> list[str]:
        async with served(engine, folder) as talk:
            return [(await talk(request.encode("latin-1"))).decode() for request in requests]

    return trio.run(main)
