"""An engine without descriptors, served by the UAPI on a socket in a temporary folder."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import trio

from tests.support.engines import FakeTun, FakeUdp
from tunnel import datapath
from tunnel.config import PrivateKey
from tunnel.control import uapi
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.device.device import Device
from tunnel.engine import Engine, boot_time
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.io.tun import Tun
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


def make_device() -> tuple[Device, ConfigurableUdp]:
    """A device without descriptors that has a private key, and its socket."""
    udp = ConfigurableUdp(Endpoint(bytes([192, 0, 2, 1]), 51820))
    device = Device(
        "wg0", cast(Tun, FakeTun()), cast(Udp, udp), mtu=1420, path=datapath.load("python")
    )
    key = PrivateKey.from_random(bytes([1]) * 32)
    device.engine.interface.set_private_key(key, boot_time())
    return device, udp


def make_engine() -> tuple[Engine, ConfigurableUdp]:
    """The engine of such a device."""
    device, udp = make_device()
    return device.engine, udp


Talk = Callable[[bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def served(device: Device, folder: Path) -> AsyncIterator[Talk]:
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

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uapi.serve, listener, device)
            yield talk
            nursery.cancel_scope.cancel()


def exchange(device: Device, folder: Path, *requests: str) -> list[str]:
    """Send each request on a connection of its own; the answers."""

    async def main() -> list[str]:
        async with served(device, folder) as talk:
            return [(await talk(request.encode("latin-1"))).decode() for request in requests]

    return trio.run(main)
