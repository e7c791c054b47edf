"""As much of HTTP/1.1 (RFC 9112) as a scraper of metrics needs: one GET per connection."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping

import trio

from tunnel.control.connections import serve_connections
from tunnel.errors import TunnelError

MAX_REQUEST = 8192
"""Bytes of a request's head; the scraper sends a few hundred."""

PATIENCE = 10.0
"""Seconds for a request to come and for its answer to be taken."""

Page = Callable[[], Awaitable[bytes]]


class HttpError(TunnelError):
    """A request that is refused. `status` is the line's number and words."""

    code = "http"

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


async def serve(listener: socket.socket, pages: Mapping[str, tuple[str, Page]]) -> None:
    """Answer GET and HEAD for `pages` (path to content type and body) until cancelled."""

    async def answer(stream: trio.SocketStream) -> None:
        with trio.move_on_after(PATIENCE):
            try:
                head = await _read_head_untrusted(stream)
                method, path = parse_head_untrusted(head)
                if path not in pages:
                    raise HttpError("404 Not Found")
                content_type, page = pages[path]
                status, body = "200 OK", await page()
            except HttpError as error:
                method, status, content_type = "GET", error.status, "text/plain; charset=utf-8"
                body = f"{error.status}; there is {', '.join(pages)}\n".encode()
            lines = [
                f"HTTP/1.1 {status}",
                f"Content-Type: {content_type}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            reply = "\r\n".join(lines).encode() + b"\r\n\r\n"
            await stream.send_all(reply if method == "HEAD" else reply + body)
            await stream.send_eof()

    await serve_connections(listener, answer)


async def _read_head_untrusted(stream: trio.SocketStream) -> bytes:
    """All up to the empty line. Raises HttpError, and trio's errors of a broken stream."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > MAX_REQUEST:
            raise HttpError("431 Request Header Fields Too Large")
        more = await stream.receive_some(4096)
        if not more:
            raise HttpError("400 Bad Request")
        data += more
    return data.partition(b"\r\n\r\n")[0]


def parse_head_untrusted(head: bytes) -> tuple[str, str]:
    """Method and path of a request's head, without query. Raises HttpError."""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpError("400 Bad Request")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise HttpError("405 Method Not Allowed")
    return method, target.partition("?")[0]
