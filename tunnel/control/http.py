"""As much of HTTP/1.1 (RFC 9112) as a scraper of metrics needs: one GET per connection."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping

import trio

from tunnel.control.clients import Client
from tunnel.control.connections import (
    Failures,
    Lines,
    LineTooLongError,
    serve_connections,
)
from tunnel.errors import TunnelError

MAX_REQUEST = 8192
"""Bytes of a request's head; the scraper sends a few hundred."""

PATIENCE = 10.0
"""Seconds for a request to come and for its answer to be taken."""

TOO_LARGE = "431 Request Header Fields Too Large"

Page = Callable[[], Awaitable[bytes]]


class HttpError(TunnelError):
    """A request that is refused. `status` is the line's number and words."""

    code = "http"

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


async def serve(listener: socket.socket, pages: Mapping[str, tuple[str, Page]]) -> None:
    """Answer GET and HEAD for `pages` (path to content type and body) until cancelled."""
    failures = Failures("metrics")

    async def answer(stream: Client) -> None:
        with trio.move_on_after(PATIENCE):
            method, content_type = "GET", "text/plain; charset=utf-8"
            try:
                method, path = parse_head_untrusted(await _read_head_untrusted(stream))
                if path not in pages:
                    raise HttpError("404 Not Found")
                with failures.contained(path):
                    body = await pages[path][1]()
                status, content_type = "200 OK", pages[path][0]
            except HttpError as error:
                status, body = error.status, f"{error.status}; there is {known}\n".encode()
            except TunnelError as error:
                status, body = "500 Internal Server Error", f"{error}\n".encode()
            lines = [
                f"HTTP/1.1 {status}",
                f"Content-Type: {content_type}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            reply = "\r\n".join(lines).encode() + b"\r\n\r\n"
            await stream.send_all(reply if method == "HEAD" else reply + body)
            await stream.send_eof()

    known = ", ".join(pages)
    await serve_connections(listener, answer, failures)


async def _read_head_untrusted(stream: Client) -> bytes:
    """All up to the empty line. Raises HttpError, and trio's errors of a broken stream."""
    lines = Lines(stream, MAX_REQUEST)
    head = b""
    while True:
        try:
            line = await lines.read_untrusted()
        except LineTooLongError:
            raise HttpError(TOO_LARGE) from None
        if line is None:
            raise HttpError("400 Bad Request")
        if not line.removesuffix(b"\r"):
            return head
        head += line + b"\n"
        if len(head) > MAX_REQUEST:
            raise HttpError(TOO_LARGE)


def parse_head_untrusted(head: bytes) -> tuple[str, str]:
    """Method and path of a request's head, without query. Raises HttpError."""
    words = head.partition(b"\n")[0].removesuffix(b"\r").decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpError("400 Bad Request")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise HttpError("405 Method Not Allowed")
    return method, target.partition("?")[0]
