"""tunnel's own control socket: one JSON object per line over a unix stream socket, root only.

Request     {"v": 1, "id": 7, "method": "status", "params": {…}}
Reply       {"v": 1, "id": 7, "result": …}
Refusal     {"v": 1, "id": 7, "error": {"code": "unknown_method", "message": "…"}}

A connection may carry any number of requests, answered in order, until one asks for a stream:

Stream      {"v": 1, "id": 7, "result": {"streaming": true}}
            {"v": 1, "id": 7, "event": {…}}

From then on it carries nothing but that stream. Protocol version 1; a request of another version is
refused with the code `version`. A request is at most 1 MiB, an answer as long as it has to be.
docs/control.md describes the methods.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import trio

from tunnel.control.connections import serve_connections
from tunnel.control.timeslice import Pace
from tunnel.errors import TunnelError

VERSION = 1
MAX_LINE = 1024 * 1024
"""Bytes of the longest request read."""

PIECE = 65_536
"""Characters of an answer that are sent at a time."""

Method = Callable[[dict[str, Any]], Awaitable[Any]]
"""Takes `params`, gives back the result as JSON-ready types and dataclasses of them; raises
ControlError."""

Stream = Callable[
    [dict[str, Any]], contextlib.AbstractContextManager[AsyncIterator[dict[str, Any]]]
]
"""Takes `params`; what is entered gives the events, and is left when the client has gone."""


class ControlError(TunnelError):
    """A control request that could not be answered. `code` is one word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def serve(
    listener: socket.socket,
    methods: Mapping[str, Method],
    streams: Mapping[str, Stream] | None = None,
) -> None:
    """Answer requests on `listener` until cancelled; at most `MAX_CONNECTIONS` at a time."""
    server = _Server(methods, streams or {})
    await serve_connections(listener, server.serve_connection)


class _Lines:
    """The lines of a connection, one at a time."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read_untrusted(self) -> bytes | None:
        """The next line; None at the end, or when a line is longer than `MAX_LINE`."""
        buffer = self._buffer
        while (newline := buffer.find(b"\n")) < 0:
            if len(buffer) > MAX_LINE:
                return None
            data = await self._stream.receive_some(65536)
            if not data:
                return None
            buffer += data
        line = bytes(buffer[:newline])
        del buffer[: newline + 1]
        return line


class _Server:
    """The methods, and how a line of a client becomes a call of one."""

    def __init__(self, methods: Mapping[str, Method], streams: Mapping[str, Stream]) -> None:
        self._methods = methods
        self._streams = streams

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        lines = _Lines(stream)
        while (line := await lines.read_untrusted()) is not None:
            request = _Request()
            try:
                request.read_untrusted(line)
                if request.method in self._streams:
                    await self._send_events(stream, request)
                    return
                reply = {"result": await self._call(request)}
            except ControlError as error:
                reply = {"error": {"code": error.code, "message": str(error)}}
            await _send_long(stream, request.id, reply)

    async def _call(self, request: _Request) -> Any:
        method = self._methods.get(request.method)
        if method is None:
            known = ", ".join(sorted([*self._methods, *self._streams]))
            raise ControlError("unknown_method", f"the methods are: {known}")
        return await method(request.params)

    async def _send_events(self, stream: trio.SocketStream, request: _Request) -> None:
        """Send events until they or the client end. Whoever reads slowly delays only itself."""
        with self._streams[request.method](request.params) as events:
            async with trio.open_nursery() as nursery:

                async def wait_closed() -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        while await stream.receive_some():
                            pass  # nothing more can be asked for on this connection
                    nursery.cancel_scope.cancel()

                async def send() -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await _send(stream, request.id, {"result": {"streaming": True}})
                        async for event in events:
                            await _send(stream, request.id, {"event": event})
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wait_closed)
                nursery.start_soon(send)


class _Request:
    """One request of a client; `id` is known as soon as the line is JSON at all."""

    def __init__(self) -> None:
        self.id: Any = None
        self.method = ""
        self.params: dict[str, Any] = {}

    def read_untrusted(self, line: bytes) -> None:
        """Read a line. Raises ControlError."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ControlError("syntax", f"not a JSON object on one line: {error}") from None
        if not isinstance(request, dict):
            raise ControlError("syntax", "a request is a JSON object")
        self.id = request.get("id")
        if request.get("v") != VERSION:
            raise ControlError("version", f"this daemon speaks version {VERSION}")
        params = request.get("params", {})
        if not isinstance(params, dict):
            raise ControlError("syntax", "params is a JSON object")
        self.method, self.params = str(request.get("method")), params


async def _send(stream: trio.SocketStream, request_id: Any, content: dict[str, Any]) -> None:
    line = json.dumps({"v": VERSION, "id": request_id, **content})
    await stream.send_all(line.encode() + b"\n")


async def _send_long(stream: trio.SocketStream, request_id: Any, content: dict[str, Any]) -> None:
    """`_send` for what may be megabytes: made and sent in slices."""
    pace = Pace()
    pieces: list[str] = []
    length = 0
    line = {"v": VERSION, "id": request_id, **content}
    for piece in _ENCODER.iterencode(line):
        pieces.append(piece)
        length += len(piece)
        if length >= PIECE:
            await stream.send_all("".join(pieces).encode())
            pieces, length = [], 0
        await pace.step()
    await stream.send_all("".join([*pieces, "\n"]).encode())


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready types, and only now: a list of thousands takes its time."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is not JSON-ready")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


_ENCODER = json.JSONEncoder(default=_fields)
