"""The little of HTTP that metrics are scraped by."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tunnel.control import http
from tunnel.control.unix_socket import bind_unix_socket


async def page() -> bytes:
    return b"numbers\n"


def exchange(tmp_path: Path, *requests: bytes) -> list[bytes]:
    """The answers to requests, each on a connection of its own."""
    path = tmp_path / "sock"
    answers = []

    async def main() -> None:
        listener = bind_unix_socket(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve, listener, {"/metrics": ("text/plain", page)})
            for request in requests:
                stream = await trio.open_unix_socket(str(path))
                async with stream:
                    await stream.send_all(request)
                    answer = b""
                    while chunk := await stream.receive_some():
                        answer += chunk
                    answers.append(answer)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return answers


def test_get_and_head(tmp_path: Path) -> None:
    got, head = exchange(
        tmp_path,
        b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n",
        b"HEAD /metrics HTTP/1.0\r\n\r\n",
    )
    assert got.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    assert got.endswith(b"Content-Length: 8\r\nConnection: close\r\n\r\nnumbers\n")
    assert head == got.removesuffix(b"numbers\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (http.MAX_REQUEST + 1), b"431"),
    ],
)
def test_refusals(tmp_path: Path, request_bytes: bytes, status: bytes) -> None:
    (answer,) = exchange(tmp_path, request_bytes)
    assert answer.split(b" ")[1] == status


def test_one_broken_request_does_not_end_the_server(tmp_path: Path) -> None:
    answers = exchange(tmp_path, b"\xff\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answers[1].startswith(b"HTTP/1.1 200")


@given(st.binary())
def test_a_head_is_read_or_refused(head: bytes) -> None:
    try:
        method, path = http.parse_head_untrusted(head)
    except http.HttpError:
        return
    assert method in ("GET", "HEAD")
    assert isinstance(path, str)


def test_sockets_close(tmp_path: Path) -> None:
    exchange(tmp_path)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(str(tmp_path / "sock"))
