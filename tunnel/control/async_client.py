"""A client of a daemon's control socket for trio: requests and events beside other work."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import trio

from tunnel.control.json_client import Dialogue, closed_error, connect_error
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.status import TunnelStatus
from tunnel.control.run_folder import socket_path


@contextlib.asynccontextmanager
async def open_connection(name: str) -> AsyncIterator[Connection]:
    """A connection to the daemon of interface `name`, closed at the end.

    Raises NotRunningError, ControlError(permission) for anyone but root, and OSError.
    """
    try:
        stream = await trio.open_unix_socket(str(socket_path(name)))
    except OSError as error:
        raise connect_error(name, error) from None
    async with stream:
        yield Connection(name, stream)


@contextlib.asynccontextmanager
async def open_stream(name: str, method: str, **params: Any) -> AsyncIterator[EventStream]:
    """The stream `method` of the daemon of interface `name`, which is running on entry.

    Raises NotRunningError, and ControlError for a refusal.
    """
    async with open_connection(name) as connection:
        await connection.call(method, **params)
        yield EventStream(connection)


class Connection:
    """Requests to one daemon, one after the other. Of no more use once a `call` was cancelled."""

    def __init__(self, name: str, stream: trio.abc.Stream) -> None:
        self._name = name
        self._stream = stream
        self._dialogue = Dialogue()

    async def call(self, method: str, **params: Any) -> Any:
        """Send one request and return its result. Raises ControlError."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.send_all(self._dialogue.request(method, params))
            if await self._has_line():
                return self._dialogue.take_result()
        raise closed_error(self._name)

    async def status(self, **params: bool) -> TunnelStatus:
        """The tunnel now; `params` are those of TunnelClient.status. Raises ControlError."""
        return TunnelStatus.from_json(await self.call("status", **params))

    async def next_event(self) -> TunnelEvent | None:
        """The next event of a stream; None at its end. Raises ControlError if it has failed."""
        with contextlib.suppress(trio.BrokenResourceError):
            if await self._has_line():
                return self._dialogue.take_event()
        return None

    async def _has_line(self) -> bool:
        """Whether another line comes before the end."""
        while not self._dialogue.has_line():
            data = await self._stream.receive_some(65536)
            if not data:
                return False
            self._dialogue.feed(data)
        return True


class EventStream:
    """An asynchronous iterator of events; it ends when the daemon closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> TunnelEvent:
        event = await self._connection.next_event()
        if event is None:
            raise StopAsyncIteration
        return event
