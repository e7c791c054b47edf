"""Streams of a daemon's control socket for trio: events as they come, beside whatever else runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import trio

from tunnel.control.json_socket import VERSION, ControlError, NotRunningError, socket_path
from tunnel.observe.events import TunnelEvent


@contextlib.asynccontextmanager
async def open_stream(name: str, method: str, **params: Any) -> AsyncIterator[EventStream]:
    """The stream `method` of the daemon of interface `name`, which is running on entry.

    Raises NotRunningError, and ControlError for a refusal.
    """
    try:
        connection = await trio.open_unix_socket(str(socket_path(name)))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(name) from None
    except PermissionError:
        message = f"the control socket {socket_path(name)} is for root only: use sudo"
        raise ControlError("permission", message) from None
    async with connection:
        request = {"v": VERSION, "id": 1, "method": method, "params": params}
        stream = EventStream(connection)
        await connection.send_all(json.dumps(request).encode() + b"\n")
        reply = await stream.receive()
        if reply is None:
            raise ControlError("closed", f"the daemon of {name} closed the connection")
        if "error" in reply:
            raise ControlError(reply["error"]["code"], reply["error"]["message"])
        yield stream


class EventStream:
    """An asynchronous iterator of events; it ends when the daemon closes the connection."""

    def __init__(self, connection: trio.abc.ReceiveStream) -> None:
        self._connection = connection
        self._buffer = bytearray()

    async def receive(self) -> dict[str, Any] | None:
        """The next line, decoded; None at the end."""
        while (newline := self._buffer.find(b"\n")) < 0:
            try:
                data = await self._connection.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._buffer += data
        line: dict[str, Any] = json.loads(self._buffer[:newline])
        del self._buffer[: newline + 1]
        return line

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> TunnelEvent:
        line = await self.receive()
        if line is None:
            raise StopAsyncIteration
        return TunnelEvent.from_json(line["event"])
