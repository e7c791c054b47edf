"""Sockets for the tests of `tunnel.io`."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import ParamSpec

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
