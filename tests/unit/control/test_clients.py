"""Clients that say nothing, read nothing, or are gone: they keep no one else out."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing

from tests.support.uapi_device import make_device
from tunnel.control import http, json_socket, run_folder, uapi
from tunnel.control.client import Ended, TunnelClient
from tunnel.control.clients import MAX_CONNECTIONS, MAX_KEPT
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.unix_socket import bind_unix_socket

Connect: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]


@contextlib.asynccontextmanager
async def serving(
    folder: Path, serve: Callable[..., Awaitable[None]], *args: Any
) -> AsyncIterator[Connect]:
    """A served socket; gives what connects to it."""
    path = folder / "wg0.sock"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bind_unix_socket(path), *args)

        with contextlib.ExitStack() as stack:

            async def connect() -> trio.SocketStream:
                stream = await trio.open_unix_socket(str(path))
                stack.callback(stream.socket.close)
                return stream

            yield connect
        nursery.cancel_scope.cancel()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(60):
            await main()

    trio.run(bounded)


async def answer(stream: trio.SocketStream, request: bytes) -> bytes:
    await stream.send_all(request)
    return bytes(await stream.receive_some(65_536))


def line(method: str) -> bytes:
    return json.dumps({"v": 1, "id": 1, "method": method}).encode() + b"\n"


async def ping(params: dict[str, Any]) -> str:
    return "pong"


async def page() -> bytes:
    return b"figures"


@pytest.mark.parametrize("said", [b"", b"{", b"get=1\n", b"GET /metrics"])
@pytest.mark.parametrize("server", ["control", "wg", "metrics"])
def test_silent_clients_make_room_for_one_that_asks(
    tmp_path: Path, server: str, said: bytes
) -> None:
    """Three times as many as there are places, of which some stopped in the middle of a request."""
    device, _ = make_device()
    serve: Any
    serve, argument, request, expected = {
        "control": (json_socket.serve, {"ping": ping}, line("ping"), b'"result": "pong"'),
        "wg": (uapi.serve, device, b"get=1\n\n", b"errno=0"),
        "metrics": (
            http.serve,
            {"/metrics": ("text/plain", page)},
            b"GET /metrics HTTP/1.1\r\n\r\n",
            b"200 OK",
        ),
    }[server]

    async def main() -> None:
        async with serving(tmp_path, serve, argument) as connect:
            silent = []
            for _ in range(3 * MAX_CONNECTIONS):
                silent.append(await connect())
                if said:
                    with contextlib.suppress(trio.BrokenResourceError):
                        await silent[-1].send_all(said)
            assert expected in await answer(await connect(), request)

    run(main)


def test_clients_that_do_not_read_make_room_too(tmp_path: Path) -> None:
    async def much(params: dict[str, Any]) -> str:
        return "x" * 1_000_000

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, {"much": much, "ping": ping}) as connect:
            deaf = []
            for _ in range(MAX_CONNECTIONS + 3):
                deaf.append(await connect())
                await deaf[-1].send_all(line("much"))
            assert b"pong" in await answer(await connect(), line("ping"))

    run(main)


def test_what_the_daemon_works_on_is_not_closed(tmp_path: Path) -> None:
    begun, done = [], trio.Event()

    async def slow(params: dict[str, Any]) -> str:
        begun.append(1)
        await done.wait()
        return "done"

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, {"slow": slow, "ping": ping}) as connect:
            working = [await connect() for _ in range(MAX_CONNECTIONS - 1)]
            for stream in working:
                await stream.send_all(line("slow"))
            await connect()
            while len(begun) < len(working):
                await trio.sleep(0.001)
            for _ in range(5):
                assert b"pong" in await answer(await connect(), line("ping"))
            done.set()
            for stream in working:
                assert b"done" in await stream.receive_some(65_536)

    run(main)


@contextlib.contextmanager
def endless(params: dict[str, Any]) -> Iterator[AsyncIterator[TunnelEvent]]:
    """A stream of events that never come."""

    async def events() -> AsyncIterator[TunnelEvent]:
        await trio.Event().wait()
        yield TunnelEvent("never", 0.0, {})

    yield events()


def test_streams_leave_room_for_requests(tmp_path: Path) -> None:
    async def main() -> None:
        arguments = ({"ping": ping}, {"events": endless})
        async with serving(tmp_path, json_socket.serve, *arguments) as connect:
            streams = [await connect() for _ in range(MAX_KEPT)]
            for stream in streams:
                assert b'"streaming": true' in await answer(stream, line("events"))
            refused = await connect()
            assert b'"code": "busy"' in await answer(refused, line("events"))
            assert b"pong" in await answer(refused, line("ping"))
            silent = [await connect() for _ in range(MAX_CONNECTIONS)]
            assert b"pong" in await answer(await connect(), line("ping"))
            await streams[0].aclose()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert b'"streaming": true' in await answer(await connect(), line("events"))
            assert silent

    run(main)


def test_down_works_without_a_place_for_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    asked = trio.Event()

    async def down(params: dict[str, Any]) -> bool:
        asked.set()
        return True

    def take_down() -> Ended:
        with TunnelClient("wg0") as client:
            return client.down()

    async def main() -> None:
        said: list[Ended] = []

        async def ask() -> None:
            said.append(await trio.to_thread.run_sync(take_down))

        async with trio.open_nursery() as nursery:
            arguments = ({"down": down}, {"events": endless})
            async with serving(tmp_path, json_socket.serve, *arguments) as connect:
                for _ in range(MAX_KEPT):
                    await answer(await connect(), line("events"))
                nursery.start_soon(ask)
                await asked.wait()
            (tmp_path / "wg0.sock").unlink()
        ((sentence,), _) = said[0]
        assert "see the log" in sentence

    run(main)


def test_what_a_client_gave_up_is_not_done_later(tmp_path: Path) -> None:
    """A request that has waited, for instance in a stopped daemon, and was reported as failed."""
    done: list[str] = []

    async def down(params: dict[str, Any]) -> bool:
        done.append("down")
        return True

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, {"down": down, "ping": ping}) as connect:
            # The server has had no turn since: it finds all this when it accepts.
            with socket.socket(socket.AF_UNIX) as gone, socket.socket(socket.AF_UNIX) as half:
                for client, method in ((gone, "down"), (half, "ping")):
                    client.connect(str(tmp_path / "wg0.sock"))
                    client.sendall(line(method))
                gone.close()
                half.shutdown(socket.SHUT_WR)
                await trio.to_thread.run_sync(half.recv, 1, socket.MSG_PEEK)
                assert b"pong" in half.recv(1000), "it still reads"
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert done == []
            assert b"true" in await answer(await connect(), line("down"))

    run(main)
    assert done == ["down"]


def test_a_daemon_that_accepts_no_connections_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "wg0.sock"))
        listener.listen(0)
        with TunnelClient("wg0"), pytest.raises(ControlError, match="does not accept") as caught:
            TunnelClient("wg0", timeout=0.01)
    assert caught.value.code == "timeout"
