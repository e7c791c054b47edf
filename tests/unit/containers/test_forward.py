"""Published ports, on the loopback of one namespace and a clock of our own."""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ParamSpec

import pytest
import trio
from trio.testing import MockClock

from tunnel.containers import forward
from tunnel.containers.forward import IDLE, Forwarder, open_doors
from tunnel.containers.ports import Published, parse

BOUND = 10.0

_P = ParamSpec("_P")


def in_trio(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """A test that runs in an event loop."""

    @functools.wraps(test)
    def run(*arguments: _P.args, **named: _P.kwargs) -> None:
        trio.run(functools.partial(test, *arguments, **named))

    return run


class Sockets:
    """Makes the sockets inside, which here is outside, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    async def make(self, family: int, kind: int) -> socket.socket:
        self.count += 1
        made = socket.socket(family, kind)
        made.setblocking(False)
        return made


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


@asynccontextmanager
async def serving(inner: int, protocol: str) -> AsyncIterator[tuple[int, Sockets]]:
    """A port of 127.0.0.1 that leads to `inner`; closed at the end."""
    outer = free_port(socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    published: list[Published] = parse(f"127.0.0.1:{outer}:{inner}/{protocol}")
    sockets = Sockets()
    with ExitStack() as stack:
        doors = open_doors(published, stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Forwarder(sockets.make).serve, doors)
            yield outer, sockets
            nursery.cancel_scope.cancel()


@in_trio
async def test_each_half_of_a_connection_is_closed_by_itself() -> None:
    inner = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with inner[0], serving(inner[0].socket.getsockname()[1], "tcp") as (outer, _):
        client = await trio.open_tcp_stream("127.0.0.1", outer)
        server = await inner[0].accept()
        async with client, server:
            await client.send_all(b"question")
            await client.send_eof()
            assert await server.receive_some() == b"question"
            assert await server.receive_some() == b""
            await server.send_all(b"answer")
            assert await client.receive_some() == b"answer"
            await server.send_eof()
            assert await client.receive_some() == b""


@pytest.mark.parametrize("resets", ["client", "server"])
@in_trio
async def test_a_reset_is_passed_on_as_one(resets: str) -> None:
    inner = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with inner[0], serving(inner[0].socket.getsockname()[1], "tcp") as (outer, _):
        client = await trio.open_tcp_stream("127.0.0.1", outer)
        server = await inner[0].accept()
        async with client, server:
            await client.send_all(b"x")
            assert await server.receive_some() == b"x"
            one, other = (client, server) if resets == "client" else (server, client)
            forward._reset(one)
            await one.aclose()
            with trio.fail_after(BOUND), pytest.raises(trio.BrokenResourceError):
                await other.receive_some()


@in_trio
async def test_a_port_without_a_service_resets_its_callers_and_goes_on() -> None:
    port = free_port(socket.SOCK_STREAM)
    async with serving(port, "tcp") as (outer, sockets):
        for _ in range(2):
            client = await trio.open_tcp_stream("127.0.0.1", outer)
            async with client:
                with trio.fail_after(BOUND), pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
        # Both loopbacks were tried, each time.
        assert sockets.count == 4
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        async with listener, await trio.open_tcp_stream("127.0.0.1", outer):
            with trio.fail_after(BOUND):
                await (await listener.accept()).aclose()


def udp_socket() -> trio.socket.SocketType:
    return trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_a_udp_flow_is_forgotten_when_it_was_idle() -> None:
    clock = MockClock()
    trio.run(_be_idle, clock, clock=clock)


async def _be_idle(clock: MockClock) -> None:
    with udp_socket() as server, udp_socket() as client:
        await server.bind(("127.0.0.1", 0))
        async with serving(server.getsockname()[1], "udp") as (outer, sockets):
            await client.connect(("127.0.0.1", outer))

            async def ask(text: bytes) -> Any:
                await client.send(text)
                data, flow = await server.recvfrom(100)
                await server.sendto(data + b"!", flow)
                assert await client.recv(100) == text + b"!"
                return flow

            first = await ask(b"one")
            clock.jump(IDLE - 1)
            assert await ask(b"two") == first
            # An answer keeps it as well as a question does.
            clock.jump(IDLE - 1)
            await server.sendto(b"late", first)
            assert await client.recv(100) == b"late"
            clock.jump(IDLE - 1)
            assert await ask(b"three") == first
            clock.jump(IDLE + 1)
            await trio.testing.wait_all_tasks_blocked()
            assert await ask(b"four") != first
            assert sockets.count == 2


@in_trio
async def test_the_flow_that_was_idle_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MAX_FLOWS", 2)
    with udp_socket() as server:
        await server.bind(("127.0.0.1", 0))
        async with serving(server.getsockname()[1], "udp") as (outer, sockets):
            clients = [udp_socket() for _ in range(3)]
            flows = []
            for client in [*clients, clients[1], clients[0]]:
                await client.sendto(b"x", ("127.0.0.1", outer))
                flows.append((await server.recvfrom(100))[1])
            assert flows[1] == flows[3]
            assert flows[0] != flows[4]
            assert sockets.count == 4
            for client in clients:
                client.close()


@in_trio
async def test_a_datagram_goes_where_a_program_listens() -> None:
    """Not at 127.0.0.1, whose refusal comes after it was sent, but at ::1."""
    with trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server, udp_socket() as client:
        await server.bind(("::1", 0))
        async with serving(server.getsockname()[1], "udp") as (outer, _):
            with trio.fail_after(BOUND):
                await client.sendto(b"first", ("127.0.0.1", outer))
                data, flow = await server.recvfrom(100)
                assert data == b"first"
                await server.sendto(b"answer", flow)
                assert await client.recvfrom(100) == (b"answer", ("127.0.0.1", outer))
