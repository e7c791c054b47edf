"""Ports of the host that lead inside, while a command runs: each end is a socket of its namespace.

A TCP connection is passed on in both directions, with its half-closes and resets. A UDP flow is a
client's address and the address of ours that it sent to: it has a socket inside until it has been
idle for IDLE seconds. Programs inside see connections from their own loopback.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, cast

import trio

from tunnel.containers.errors import ContainerError
from tunnel.containers.ports import Published
from tunnel.errors import unwrapped
from tunnel.io import cmsg
from tunnel.io.endpoint import Endpoint, SockAddr

IDLE = 60.0
"""Seconds without a datagram in either direction after which a UDP flow is forgotten."""

MAX_FLOWS = 1024
"""UDP flows of one port; for one more the flow that was idle longest is forgotten."""

_PIECE: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close() sends RST
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


MakeSocket = Callable[[int, int], Awaitable[socket.socket]]
Reply = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Door:
    """A published port and its sockets on this host."""

    published: Published
    sockets: Sequence[socket.socket]


def open_doors(published: Iterable[Published], stack: contextlib.ExitStack) -> list[Door]:
    """Bind them all; `stack` closes them. Raises ContainerError for the first that cannot be."""
    doors = []
    for each in published:
        found = each.listen()
        for made in found:
            stack.enter_context(made)
        doors.append(Door(each, found))
    return doors


class Forwarder:
    """Serves doors for a command, which may listen on its loopback or on `addresses`.

    `make_socket` makes a socket inside, of a family and a kind.
    """

    def __init__(self, make_socket: MakeSocket, addresses: Iterable[str] = ()) -> None:
        self._make_socket = make_socket
        self._targets = tuple(dict.fromkeys(["127.0.0.1", "::1", *addresses]))

    async def serve(self, doors: Iterable[Door]) -> None:
        """Pass on what comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            for door in doors:
                for made in door.sockets:
                    if door.published.protocol == "tcp":
                        nursery.start_soon(self._serve_tcp, made, door.published.inner)
                    else:
                        nursery.start_soon(_UdpDoor(self, made, door.published.inner).run)

    async def open(self, target: str, port: int, kind: socket.SocketKind) -> trio.socket.SocketType:
        """A socket inside that is connected. Raises OSError where it is refused."""
        version = ip_address(target).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        made = trio.socket.from_stdlib_socket(await self._make_socket(family, kind))
        try:
            await made.connect((target, port))
        except BaseException:
            made.close()
            raise
        return made

    @property
    def targets(self) -> Sequence[str]:
        """Addresses inside where a program may listen, in the order in which they are tried."""
        return self._targets

    async def _serve_tcp(self, listener: socket.socket, port: int) -> None:
        served = trio.SocketListener(trio.socket.from_stdlib_socket(listener))

        async def handle(outer: trio.SocketStream) -> None:
            async with outer:
                for target in self._targets:
                    with contextlib.suppress(OSError, ContainerError):
                        inner = trio.SocketStream(await self.open(target, port, socket.SOCK_STREAM))
                        break
                else:
                    _reset(outer)
                    return
                async with inner:
                    await _join(outer, inner)

        await trio.serve_listeners(handle, [served])


async def _join(one: trio.SocketStream, other: trio.SocketStream) -> None:
    """Pass on both directions until both have ended, or either side is reset."""
    async with trio.open_nursery() as nursery:

        async def pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            try:
                while data := await source.receive_some(_PIECE):
                    await sink.send_all(data)
                await sink.send_eof()
            except _GONE:
                _reset(one)
                _reset(other)
                nursery.cancel_scope.cancel()

        nursery.start_soon(pass_on, one, other)
        nursery.start_soon(pass_on, other, one)


def _reset(stream: trio.SocketStream) -> None:
    """Have its close be a reset: the other side learns that not everything has arrived."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _UdpDoor:
    """One UDP socket of this host, and the flows that have come by it."""

    def __init__(self, forwarder: Forwarder, outer: socket.socket, port: int) -> None:
        self._outer = trio.socket.from_stdlib_socket(outer)
        self._forwarder = forwarder
        self._port = port
        self._flows: OrderedDict[Endpoint, _Flow] = OrderedDict()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    data, messages, _, sender = await self._outer.recvmsg(_PIECE, cmsg.RECEIVE_SIZE)
                except OSError:
                    continue  # an ICMP error that belongs to what was sent before
                client = Endpoint.from_sockaddr(cast(SockAddr, sender), cmsg.parse(messages).source)
                flow = self._flows.get(client)
                if flow is None:
                    if len(self._flows) >= MAX_FLOWS:
                        _, oldest = self._flows.popitem(last=False)
                        oldest.scope.cancel()
                    flow = self._flows[client] = _Flow(self._forwarder, self._port)
                    nursery.start_soon(self._run, client, flow)
                self._flows.move_to_end(client)
                flow.put(data)

    async def _run(self, client: Endpoint, flow: _Flow) -> None:
        async def reply(data: bytes) -> None:
            with contextlib.suppress(OSError):
                await self._outer.sendmsg([data], client.control, 0, client.sockaddr)

        try:
            await flow.run(reply)
        finally:
            if self._flows.get(client) is flow:
                del self._flows[client]


class _Flow:
    """One client's datagrams, and the replies: a connected socket inside."""

    WAITING = 64

    def __init__(self, forwarder: Forwarder, port: int) -> None:
        self.scope = trio.CancelScope()
        self._forwarder = forwarder
        self._port = port
        self._put, self._waiting = trio.open_memory_channel[bytes](self.WAITING)
        self._last = b""

    def put(self, data: bytes) -> None:
        """Take a datagram of the client; one too many is lost, as on a network."""
        self._stay()
        with contextlib.suppress(trio.WouldBlock):
            self._put.send_nowait(data)

    def _stay(self) -> None:
        self.scope.deadline = trio.current_time() + IDLE

    async def run(self, reply: Reply) -> None:
        """Pass on until it is idle, or is refused at every address inside."""
        with self.scope:
            self._last = await self._waiting.receive()
            for target in self._forwarder.targets:
                with contextlib.suppress(OSError, ContainerError):
                    made = await self._forwarder.open(target, self._port, socket.SOCK_DGRAM)
                    with made:
                        await self._exchange(made, reply)

    async def _exchange(self, made: trio.socket.SocketType, reply: Reply) -> None:
        """Begin with the last datagram of the client. Raises ConnectionRefusedError."""

        async def forth() -> None:
            while True:
                await made.send(self._last)
                self._last = await self._waiting.receive()

        with unwrapped(ConnectionRefusedError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forth)
                while True:
                    data = await made.recv(_PIECE)
                    self._stay()
                    await reply(data)
