"""The connections of a server: how many there may be, and which of them makes room for another.

There is no time limit for a client that says nothing: it is harmless until its place is needed.
Then the one that has been silent longest is closed, so that thirty forgotten connections do not
keep out `tunnel down`. What the daemon is at work on is never closed, nor is a stream; but streams
leave some places to the others.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator

import trio

MAX_CONNECTIONS = 32
MAX_KEPT = MAX_CONNECTIONS - 8
"""Connections that may be streams; the rest is for requests."""
BACKLOG = 4 * MAX_CONNECTIONS
"""Connections that the kernel holds until they are accepted: each that comes in a hurry waits for
another to make room."""

_LOOK_AGAIN = 0.05
"""Seconds until it is looked again for a client that waits, when the daemon worked for all."""


class Client(trio.abc.HalfCloseableStream):
    """A connection, and since when it waits for its client: `silent_since`, in seconds, or None.

    It waits when it reads and nothing comes, or when it writes and nothing is taken.
    """

    def __init__(self, stream: trio.SocketStream, places: Places) -> None:
        self._stream = stream
        self._places = places
        self.silent_since: float | None = None
        self.keeps_place = False
        self.scope = trio.CancelScope()

    def keep_place(self) -> bool:
        """Never close this one to make room, unless there are `MAX_KEPT` such; whether it is so."""
        self.keeps_place = self.keeps_place or self._places.kept < MAX_KEPT
        return self.keeps_place

    def has_left(self) -> bool:
        """Whether the client has closed its end altogether: no answer would reach it."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As of `trio.SocketStream`."""
        with self._waiting():
            return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As of `trio.SocketStream`, but cancelled only where the client takes nothing more: what
        the kernel has room for is sent also while the daemon ends.
        """
        with self._waiting():
            sent = 0
            with contextlib.suppress(OSError):  # which the stream meets again, and can tell
                sent = os.write(self._stream.socket.fileno(), data)
            if sent < len(data):
                await self._stream.send_all(memoryview(data)[sent:])
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """As of `trio.SocketStream`."""
        with self._waiting():
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As of `trio.SocketStream`."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """As of `trio.SocketStream`."""
        await self._stream.aclose()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self.silent_since = trio.current_time()
        try:
            yield
        finally:
            self.silent_since = None


class Places:
    """The clients of one server, at most `MAX_CONNECTIONS`."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()
        self._left = trio.Event()

    @property
    def kept(self) -> int:
        """How many are never closed to make room."""
        return sum(client.keeps_place for client in self._clients)

    async def take(self, stream: trio.SocketStream) -> Client:
        """A place for a new connection, which another may have to leave first."""
        while len(self._clients) >= MAX_CONNECTIONS:
            waiting = [
                (client.silent_since, id(client), client)
                for client in self._clients
                if client.silent_since is not None and not client.keeps_place
            ]
            if waiting:
                min(waiting)[-1].scope.cancel()
            self._left = trio.Event()
            with trio.move_on_after(_LOOK_AGAIN):
                await self._left.wait()
        client = Client(stream, self)
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """The connection has ended."""
        self._clients.discard(client)
        self._left.set()
