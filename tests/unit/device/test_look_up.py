"""The names of a conf, looked up before the tunnel comes up, in virtual time."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tunnel.config import EndpointConfig, PeerConfig, PrivateKey
from tunnel.device.look_up import BOUND, OTHERS_WAIT, resolve_all, resolve_some
from tunnel.device.resolve import ResolveError

ADDRESS = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 51820))]

BLOCKED = [
    (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::", 51820, 0, 0)),
    (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("0.0.0.0", 51820)),
]
"""What a name server that blocks a name answers."""


class Resolver(trio.abc.HostnameResolver):
    """Answers by what stands in a name: `good`, `blocked`, `both`, `silent`, or the name of an
    error as in `nodata.example`.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, *_: Any, **__: Any) -> list[Any]:
        kind = host.decode().partition(".")[0].rstrip("0123456789")
        self.asked.append(kind)
        if kind == "silent":
            await trio.sleep(244)
        if kind == "good":
            return ADDRESS
        if kind == "blocked":
            return BLOCKED
        if kind == "both":
            return BLOCKED + ADDRESS * 2
        raise socket.gaierror(getattr(socket, f"EAI_{kind.upper()}"), "as libc has it")

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise NotImplementedError


def peers(*names: str) -> list[PeerConfig]:
    return [
        PeerConfig(
            PrivateKey.from_bytes(bytes([number] * 32)).public_key(),
            endpoint=EndpointConfig(name, 51820),
        )
        for number, name in enumerate(names, 1)
    ]


def run(call: Callable[[], Awaitable[Any]]) -> tuple[Any, float, Resolver]:
    """What it returns or raises, the seconds that it took, and what was asked for."""
    resolver = Resolver()

    async def main() -> tuple[Any, float]:
        trio.socket.set_custom_hostname_resolver(resolver)
        begin = trio.current_time()
        try:
            result = await call()
        except ResolveError as error:
            result = error
        return result, trio.current_time() - begin

    result, seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return result, seconds, resolver


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("noname.example", "there is no such name (check the spelling)"),
        ("nodata.example", "has no address: neither an A nor an AAAA record"),
        ("fail.example", "the name server has refused or failed for good"),
        ("blocked.example", "the answer has no address that a host can have: a name server may"),
    ],
)
def test_permanent_failure_is_no_matter_of_waiting(name: str, words: str) -> None:
    error, seconds, resolver = run(lambda: resolve_some(peers(name)))
    assert isinstance(error, ResolveError)
    assert f"Endpoint = {name}:51820" in str(error)
    assert words in str(error)
    assert seconds == 0
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    ("name", "words", "attempts"),
    [
        ("again.example", "or it has no answer for the moment (SERVFAIL)", 15),
        ("silent.example", "no name server has answered yet", 1),
    ],
)
def test_temporary_failure_is_tried_for_a_minute_and_no_longer(
    name: str, words: str, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    error, seconds, resolver = run(lambda: resolve_some(peers(name)))
    assert isinstance(error, ResolveError)
    assert words in str(error)
    assert 55 < seconds <= BOUND
    assert len(resolver.asked) == attempts
    (message,) = caplog.messages
    assert message.startswith(f"still looking up {name}: ")
    assert words in message


def test_one_dead_name_of_several_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    wanted = peers("good.example", "noname.example")
    found, seconds, _ = run(lambda: resolve_some(wanted))
    assert [len(addresses) for addresses in found.values()] == [1, 0]
    assert len(found[wanted[0].public_key]) == 1
    assert seconds == 0
    (message,) = caplog.messages
    assert "noname.example:51820: there is no such name" in message
    assert "starts without this endpoint, and goes on trying" in message


def test_address_that_no_host_has_is_left_out() -> None:
    wanted = peers("both.example")
    found, _, _ = run(lambda: resolve_some(wanted))
    assert [str(endpoint) for endpoint in found[wanted[0].public_key]] == ["192.0.2.1:51820"]


@pytest.mark.parametrize("name", ["again.example", "silent.example"])
def test_name_that_may_yet_be_known_is_waited_for_a_little(name: str) -> None:
    found, seconds, _ = run(lambda: resolve_some(peers("good.example", name)))
    assert [len(addresses) for addresses in found.values()] == [1, 0]
    assert seconds == OTHERS_WAIT


def test_where_all_are_needed_the_first_failure_is_raised_at_once() -> None:
    wanted = peers("silent.example", "good.example", "nodata.example")
    error, seconds, _ = run(lambda: resolve_all(wanted))
    assert isinstance(error, ResolveError)
    assert "nodata.example" in str(error)
    assert seconds == 0


def test_many_names_are_looked_up_a_few_at_a_time() -> None:
    found, _, resolver = run(lambda: resolve_all(peers(*(f"good{n}.example" for n in range(20)))))
    assert len(found) == len(resolver.asked) == 20
