"""Fuzz target of the names that endpoints have: whatever the system answers to a look-up.

An input is text: answers are separated by `&`, the addresses of one by `;`, and of an address these
are separated by commas: host, port, flow information, scope, canonical name. `!-3` is a gaierror
of that number, `#24` any other OSError, and a host such as `=7` that of a Python without IPv6.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import trio
import trio.testing

from tests.support.fuzz.target import Target
from tests.support.uapi_device import make_engine
from tunnel.config import EndpointConfig, PeerConfig, PrivateKey
from tunnel.device.endpoints import LONGEST_PAUSE, Endpoints
from tunnel.device.look_up import resolve_some
from tunnel.device.resolve import MAX_ADDRESSES, ResolveError
from tunnel.protocol import HandshakeUnanswered

LOOK_UPS = 6
"""Answers of an input that are used: one to come up, the others while nobody answers."""

KEY = PrivateKey.from_bytes(bytes([7]) * 32).public_key()
PEER = PeerConfig(KEY, endpoint=EndpointConfig("peer.example", 51820))
NONE = b"!-2"


def number(text: bytes) -> int:
    """A number of 32 bits, as the kernel's are; 0 if it is none."""
    with suppress(ValueError):
        return int(text[:12]) & 0xFFFF_FFFF
    return 0


def result(text: bytes) -> tuple[Any, ...]:
    """One address, in the form in which getaddrinfo gives it."""
    host, port, flow, scope, name, *_ = *text.split(b",", 4), b"", b"", b"", b"", b""
    shown = host.decode("utf-8", "surrogateescape")
    family = socket.AF_INET6 if ":" in shown or shown[:1] == "=" else socket.AF_INET
    address: tuple[Any, ...] = shown, number(port) & 0xFFFF
    if shown[:1] == "=":
        address = number(host[1:]), host
    elif family == socket.AF_INET6:
        address = (*address, number(flow), number(scope))
    return family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, name.decode("latin-1"), address


class Resolver(trio.abc.HostnameResolver):
    """Gives one answer after the other, and then that there is no such name."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers: Iterator[bytes] = iter(answers)

    async def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        answer = next(self._answers, NONE)
        if answer[:1] == b"!":
            text = answer.decode("latin-1")
            raise (
                socket.gaierror(number(answer[1:]) - 2**32, text)
                if answer[1:]
                else (socket.gaierror(text))
            )
        if answer[:1] == b"#":
            raise OSError(number(answer[1:]) & 0xFF, answer.decode("latin-1"))
        return [result(text) for text in answer.split(b";") if text]

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise NotImplementedError


async def look_up(answers: list[bytes]) -> None:
    """Come up with the first answer; then be asked for the next one, as nobody answers."""
    trio.socket.set_custom_hostname_resolver(Resolver(answers))
    found = await resolve_some([PEER])
    names = Endpoints(clock=trio.current_time)
    await names.update([PEER], found)
    engine, _ = make_engine()
    peer = engine.interface.add_peer(KEY)
    peer.set_endpoint(found[KEY][0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.run, engine)
        for attempt in range(len(answers)):
            ring = names._names[KEY].addresses
            assert 1 <= len(ring) <= MAX_ADDRESSES
            assert len(ring) == len(set(ring))
            assert all(str(endpoint).isprintable() for endpoint in ring)
            assert not any(ip_address(endpoint.address).is_multicast for endpoint in ring)
            assert names.retry(ring[-1]) in ring
            names.handle_event(HandshakeUnanswered(KEY, peer.endpoint, attempt + 1))
            await trio.sleep(LONGEST_PAUSE)
        nursery.cancel_scope.cancel()


def run_lookups(data: bytes) -> None:
    """Look a name up again and again, in virtual time."""
    answers = data.split(b"&")[:LOOK_UPS]
    trio.run(look_up, answers, clock=trio.testing.MockClock(autojump_threshold=0))


TARGETS = (
    Target(
        name="name_lookups",
        reads=("tunnel.device.resolve", "tunnel.device.endpoints", "tunnel.device.look_up"),
        run=run_lookups,
        refusal=ResolveError,
        base=60_000,
        per_byte=60,
        words=(
            b"192.0.2.1,51820",
            b"2001:db8::1,51820,0,0",
            b"fe80::1%eth0,51820,0,7",
            b"::ffff:192.0.2.9,51820,0,0,peer.example.\n",
            b"0.0.0.0,51820",
            b"::,51820",
            b"ff02::1,51820,0,4294967295",
            b"=10,51820",
            b"!-3",
            b"!-11",
            b"#24",
            b"&",
            b";",
        ),
    ),
)
