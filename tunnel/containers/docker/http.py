"""HTTP/1.1 over a unix socket on trio, by h11: the server that Docker asks. Both sides send JSON.

h11 knows the protocol and no socket.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import h11
import trio

from tunnel.control.clients import Client
from tunnel.control.connections import Failures, serve_connections

MAX_BODY: Final = 1 << 20
"""Bytes of a request's body: Docker's have a few hundred."""
TYPE: Final = "application/vnd.docker.plugins.v1.2+json"

_READ = 65536

Handler = Callable[[str, bytes], Awaitable[tuple[int, object]]]
"""From the path and body of a POST to the status and what is sent back as JSON."""


async def serve(listener: socket.socket, handler: Handler, failures: Failures) -> None:
    """Answer requests until cancelled; connections are kept open between them."""

    async def serve_connection(stream: Client) -> None:
        await converse(stream, handler)

    await serve_connections(listener, serve_connection, failures)


async def converse(stream: trio.abc.HalfCloseableStream, handler: Handler) -> None:
    """Answer the requests of one connection."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_READ)
    while True:
        try:
            request, body = await _receive(stream, connection)
        except h11.RemoteProtocolError as error:
            await _refuse(stream, connection, error.error_status_hint, str(error))
            return
        except _TooLargeError:
            await _refuse(stream, connection, 413, f"a body has more than {MAX_BODY} bytes")
            return
        if request is None:
            return
        status: int
        answer: object
        status, answer = 405, _error("only POST is answered")
        if request.method == b"POST":
            path = request.target.decode("ascii", "replace").partition("?")[0]
            status, answer = await handler(path, body)
        await _answer(stream, connection, status, answer)
        if connection.our_state is h11.MUST_CLOSE:
            return
        connection.start_next_cycle()


class _TooLargeError(Exception):
    """A body is larger than it may be."""


async def _receive(
    stream: trio.abc.ReceiveStream, connection: h11.Connection
) -> tuple[h11.Request | None, bytes]:
    """The next request and its body; None at the end of the connection."""
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _TooLargeError
        elif isinstance(event, h11.EndOfMessage):
            return request, bytes(body)
        else:
            return None, b""


async def _answer(
    stream: trio.abc.SendStream, connection: h11.Connection, status: int, answer: object
) -> None:
    data = json.dumps(answer).encode()
    headers = [("Content-Type", TYPE), ("Content-Length", str(len(data)))]
    text = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    text += connection.send(h11.Data(data=data)) or b""
    text += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(text)


async def _refuse(
    stream: trio.abc.HalfCloseableStream, connection: h11.Connection, status: int, why: str
) -> None:
    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        await _answer(stream, connection, status, _error(why))
        await stream.send_eof()


def _error(text: str) -> dict[str, str]:
    return {"Err": text}
