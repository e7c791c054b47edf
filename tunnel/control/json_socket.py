"""The server of tunnel's own control socket; json_protocol has what it speaks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import trio

from tunnel.control.clients import MAX_KEPT, Client
from tunnel.control.connections import Failures, Lines, LineTooLongError, serve_connections
from tunnel.control.json_protocol import VERSION, ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.timeslice import Pace
from tunnel.errors import TunnelError
from tunnel.linux.json_text import read_json

MAX_LINE = 1024 * 1024
"""Bytes of the longest request read."""

PIECE = 65_536
"""Characters of an answer that are sent at a time."""

Method = Callable[[dict[str, Any]], Awaitable[Any]]
"""Takes `params`, returns the result as JSON-ready types and dataclasses of them. A TunnelError
becomes a refusal with its code."""

Stream = Callable[[dict[str, Any]], contextlib.AbstractContextManager[AsyncIterator[TunnelEvent]]]
"""Takes `params`; what is entered gives the events, and is left when the client has gone."""


async def serve(
    listener: socket.socket,
    methods: Mapping[str, Method],
    streams: Mapping[str, Stream] | None = None,
) -> None:
    """Answer requests on `listener` until cancelled; at most `MAX_CONNECTIONS` at a time."""
    server = _Server(methods, streams or {})
    await serve_connections(listener, server.serve_connection, server.failures)


class _Server:
    """The methods, and how a line of a client becomes a call of one."""

    def __init__(self, methods: Mapping[str, Method], streams: Mapping[str, Stream]) -> None:
        self._methods = methods
        self._streams = streams
        self.failures = Failures("control socket")

    async def serve_connection(self, stream: Client) -> None:
        lines = Lines(stream, MAX_LINE)
        while True:
            replies = _Replies(stream)
            try:
                line = await lines.read_untrusted()
                if line is None:
                    return
                await self._answer(line, replies)
            except TunnelError as error:
                if replies.is_within_line:
                    return  # what was sent cannot be taken back
                await replies.send("error", {"code": error.code, "message": str(error)})
                if isinstance(error, LineTooLongError):
                    return
            if replies.is_streaming:
                return

    async def _answer(self, line: bytes, replies: _Replies) -> None:
        with self.failures.contained("a request"):
            request = _read_request_untrusted(line, replies)
        with self.failures.contained(request.method):
            if replies.stream.has_left():
                # It gave up waiting, and has reported so: what it wanted must not happen later.
                raise trio.BrokenResourceError
            if request.method in self._streams:
                if not replies.stream.keep_place():
                    raise ControlError(
                        "busy", f"{MAX_KEPT} streams are open already; end one of those programs"
                    )
                with self._streams[request.method](request.params) as events:
                    await _send_events(replies, events)
            elif request.method in self._methods:
                method = self._methods[request.method]
                await replies.send_long("result", await method(request.params))
            else:
                known = ", ".join(sorted([*self._methods, *self._streams]))
                raise ControlError("unknown_method", f"the methods are: {known}")


async def _send_events(replies: _Replies, events: AsyncIterator[TunnelEvent]) -> None:
    """Send events until they or the client end. A slow reader delays only itself."""
    closed = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait_closed() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while await replies.stream.receive_some():
                    pass  # nothing more can be asked for on this connection
            closed.set()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_closed)
        replies.is_streaming = True
        with contextlib.suppress(trio.BrokenResourceError):
            await replies.send("result", {"streaming": True})
            async for event in events:
                await replies.send("event", event.to_json())
                if closed.is_set():
                    break  # nothing is cancelled while there is an event, and room for it
        nursery.cancel_scope.cancel()


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    method: str
    params: dict[str, Any]


def _read_request_untrusted(line: bytes, replies: _Replies) -> _Request:
    """Read a line; `replies` get its id as soon as it is known. Raises ControlError."""
    try:
        request = read_json(line)
        if not isinstance(request, dict):
            raise ControlError("syntax", "a request is a JSON object")
        # Encoded only here: an id may be nested too deeply to be written, though it was read.
        replies.id = json.dumps(request.get("id"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ControlError("syntax", f"not a JSON object on one line: {error}") from None
    if request.get("v") != VERSION:
        raise ControlError("version", f"this daemon speaks version {VERSION}")
    method, params = request.get("method"), request.get("params", {})
    if not isinstance(method, str):
        raise ControlError("syntax", "method is a string")
    if not isinstance(params, dict):
        raise ControlError("syntax", "params is a JSON object")
    return _Request(method, params)


class _Replies:
    """Lines to one client that answer one request. `id` is the request's, as JSON text."""

    def __init__(self, stream: Client) -> None:
        self.stream = stream
        self.id = "null"
        self.is_streaming = False
        self.is_within_line = False

    async def send(self, kind: str, value: Any) -> None:
        """Send a line with `value` as `kind`: result, error or event."""
        await self._send_part(f"{self._begin(kind)}{json.dumps(value)}}}\n")

    async def send_long(self, kind: str, value: Any) -> None:
        """`send` for what may be megabytes: encoded and sent in slices."""
        pace = Pace()
        pieces = [self._begin(kind)]
        length = 0
        for piece in _ENCODER.iterencode(value):
            pieces.append(piece)
            length += len(piece)
            if length >= PIECE:
                await self._send_part("".join(pieces))
                pieces, length = [], 0
            await pace.step()
        await self._send_part("".join([*pieces, "}\n"]))

    def _begin(self, kind: str) -> str:
        return f'{{"v": {VERSION}, "id": {self.id}, "{kind}": '

    async def _send_part(self, text: str) -> None:
        data = text.encode()
        self.is_within_line = not text.endswith("\n")
        await self.stream.send_all(data)


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready types, and only now: a list of thousands takes its time."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is not JSON-ready")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


_ENCODER = json.JSONEncoder(default=_fields)
