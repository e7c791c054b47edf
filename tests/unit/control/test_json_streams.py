from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tunnel.control import client as client_module
from tunnel.control import json_socket, run_folder
from tunnel.control.broadcast import EventQueue
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.control.json_socket import serve
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.unix_socket import bind_unix_socket


class Numbers:
    """A stream of so many events."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.ended = False

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> TunnelEvent:
        await trio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return TunnelEvent("number", 1.0, {"left": self.left})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    return tmp_path


def _stream(numbers: Numbers) -> json_socket.Stream:
    @contextlib.contextmanager
    def events(params: dict[str, Any]) -> Iterator[Numbers]:
        try:
            yield numbers
        finally:
            numbers.ended = True

    return events


def test_client_reads_a_stream_to_its_end(folder: Path) -> None:
    async def main() -> list[int]:
        numbers = Numbers(500)
        listener = bind_unix_socket(folder / "wg0.sock")

        def read() -> list[int]:
            with TunnelClient("wg0") as client:
                return [event.details["left"] for event in client.events()]

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, {}, {"events": _stream(numbers)})
                got = await trio.to_thread.run_sync(read)
                nursery.cancel_scope.cancel()
        assert numbers.ended
        return got

    assert trio.run(main) == list(range(499, -1, -1))


def test_client_that_goes_away_ends_its_stream(folder: Path) -> None:
    class Silent(Numbers):
        async def __anext__(self) -> TunnelEvent:
            await trio.sleep_forever()
            raise AssertionError("unreachable")

    async def main() -> None:
        numbers = Silent(1)
        listener = bind_unix_socket(folder / "wg0.sock")

        def subscribe() -> None:
            with TunnelClient("wg0") as client:
                client.subscribe()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, {}, {"events": _stream(numbers)})
                await trio.to_thread.run_sync(subscribe)
                while not numbers.ended:
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_client_that_closes_its_half_ends_a_stream_that_always_has_an_event(folder: Path) -> None:
    class Endless(EventQueue):
        def _has_event(self) -> bool:
            return True

        def _next(self) -> TunnelEvent:
            return TunnelEvent("number", 1.0, {})

    @contextlib.contextmanager
    def events(params: dict[str, Any]) -> Iterator[Endless]:
        yield Endless()

    async def main() -> None:
        listener = bind_unix_socket(folder / "wg0.sock")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener, {}, {"events": events})
            with trio.fail_after(10):
                async with await trio.open_unix_socket(str(folder / "wg0.sock")) as stream:
                    await stream.send_all(b'{"v": 1, "method": "events"}\n')
                    await stream.receive_some()
                    await stream.send_eof()
                    async for _ in stream:
                        pass
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_refused_stream_leaves_the_connection_usable(folder: Path) -> None:
    @contextlib.contextmanager
    def refuse(params: dict[str, Any]) -> Iterator[Numbers]:
        if not params:
            raise ControlError("too_many", "go away")
        yield Numbers(0)

    async def down(params: dict[str, Any]) -> bool:
        return True

    async def main() -> None:
        listener = bind_unix_socket(folder / "wg0.sock")

        def talk() -> None:
            with TunnelClient("wg0") as client:
                with pytest.raises(ControlError, match="go away") as refused:
                    client.subscribe()
                assert refused.value.code == "too_many"
                client.call("down")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, {"down": down}, {"events": refuse})
                await trio.to_thread.run_sync(talk)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_lack_of_descriptors_does_not_end_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([errno.EMFILE, errno.ENOBUFS])
    accept = trio.SocketListener.accept

    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        number = next(failures, None)
        if number is not None:
            raise OSError(number, "injected")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)

    async def down(params: dict[str, Any]) -> bool:
        return True

    async def main() -> None:
        listener = bind_unix_socket(folder / "wg0.sock")

        def talk() -> None:
            with TunnelClient("wg0") as client:
                client.call("down")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, {"down": down})
                await trio.to_thread.run_sync(talk)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_line_without_end_is_refused_and_closes_the_connection(folder: Path) -> None:
    async def main() -> bytes:
        listener = bind_unix_socket(folder / "wg0.sock")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, {})
                async with await trio.open_unix_socket(folder / "wg0.sock") as stream:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await stream.send_all(b"x" * (json_socket.MAX_LINE + 200_000))
                        stream.socket.shutdown(socket.SHUT_WR)
                    rest = b""
                    with contextlib.suppress(trio.BrokenResourceError):
                        while part := await stream.receive_some():
                            rest += part
                nursery.cancel_scope.cancel()
                return rest
        raise AssertionError("unreachable")

    assert json.loads(trio.run(main))["error"]["code"] == "syntax"


@pytest.mark.parametrize("together", [False, True])
def test_events_that_come_with_the_answer_are_seen(folder: Path, *, together: bool) -> None:
    answer = b'{"v": 1, "id": 1, "result": {"streaming": true}}\n'
    event = b'{"v": 1, "id": 1, "event": {"type": "ephemeral", "time": 1.0}}\n'
    with bind_unix_socket(folder / "wg0.sock") as listener:
        listener.setblocking(True)

        def serve_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer + event if together else answer)
                connection.recv(4096)  # until the client has looked
                connection.sendall(event)

        server = threading.Thread(target=serve_one)
        server.start()
        with TunnelClient("wg0") as client:
            client.subscribe_keys()
            assert client.has_unread() is together
            if together:
                assert [event.type for event in client.read_events()] == ["ephemeral"]
            client._socket.sendall(b"\n")
            assert [event.type for event in client.read_events()] == ["ephemeral"]
        server.join(5)


@pytest.mark.parametrize("request_", ["ping", "reload", "diff", "save", "down"])
def test_daemon_that_hangs_is_given_up_soon_and_the_way_out_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    monkeypatch.setattr(client_module, "PING_TIMEOUT", 0.1)
    with (
        contextlib.closing(bind_unix_socket(folder / "wg0.sock")),
        TunnelClient("wg0") as client,
        pytest.raises(ControlError) as caught,
    ):
        getattr(client, request_)()
    assert caught.value.code == "timeout"
    pid = os.getpid()
    assert f"process {pid}" in str(caught.value)
    assert f"kill -9 {pid}, and then tunnel up with its conf" in str(caught.value)
