"""A daemon's control socket for trio: requests and events, beside whatever else runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import trio

from tunnel.control.json_client import NotRunningError, event_of, result_of
from tunnel.control.json_socket import VERSION, ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.run_folder import socket_path


@contextlib.asynccontextmanager
async def open_connection(name: str) -> AsyncIterator[Connection]:
    """A connection to the daemon of interface `name`, closed at the end.

    Raises NotRunningError, and ControlError(permission) for anybody but root.
    """
    try:
        stream = await trio.open_unix_socket(str(socket_path(name)))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(name) from None
    except PermissionError:
        message = f"the control socket {socket_path(name)} is for root only: use sudo"
        raise ControlError("permission", message) from None
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
        self._buffer = bytearray()
        self._next_id = 0

    async def call(self, method: str, **params: Any) -> Any:
        """Send one request and return its result. Raises ControlError."""
        self._next_id += 1
        request = {"v": VERSION, "id": self._next_id, "method": method, "params": params}
        reply = None
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.send_all(json.dumps(request).encode() + b"\n")
            reply = await self.receive()
        if reply is None:
            raise ControlError("closed", f"the daemon of {self._name} closed the connection")
        return result_of(reply)

    async def receive(self) -> dict[str, Any] | None:
        """The next line, decoded; None at the end."""
        while (newline := self._buffer.find(b"\n")) < 0:
            try:
                data = await self._stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._buffer += data
        line: dict[str, Any] = json.loads(self._buffer[:newline])
        del self._buffer[: newline + 1]
        return line


class EventStream:
    """An asynchronous iterator of events; it ends when the daemon closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> TunnelEvent:
        line = await self._connection.receive()
        if line is None:
            raise StopAsyncIteration
        return event_of(line)
