import functools
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import ParamSpec

import pytest
import trio

from tunnel.io.udp import Udp
from tunnel.io.udp_socket import Received

Receive = Callable[[Udp, socket.AddressFamily], tuple[Received, bytes]]
OpenUdp = Callable[..., Udp]
P = ParamSpec("P")


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test; fixtures reach it by the names of its parameters."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs))

    return run


@pytest.fixture
def open_udp() -> Iterator[OpenUdp]:
    """`Udp.open`, closed after the test."""
    with ExitStack() as stack:

        def open_one(*args: int, **options: bool) -> Udp:
            return stack.enter_context(Udp.open(*args, **options))

        yield open_one


@pytest.fixture
def receive() -> Receive:
    """Receive one batch, which loopback has delivered by the time that poll says so."""

    def receive_one(udp: Udp, family: socket.AddressFamily) -> tuple[Received, bytes]:
        buffer = bytearray(70_000)
        ready, _, _ = select.select([udp._sockets[family].sock], [], [], 5)
        assert ready, "nothing arrived"
        received = udp.receive(family, buffer)
        assert received is not None
        return received, bytes(buffer[: received.length])

    return receive_one
