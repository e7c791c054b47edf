import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.sockets import OpenUdp, Receive
from tunnel.io.udp import Udp
from tunnel.io.udp_socket import Received


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
