from __future__ import annotations

import errno
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.json_socket import Method, serve
from tunnel.control.unix_socket import bind_unix_socket


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    return tmp_path


async def _echo(params: dict[str, Any]) -> Any:
    return params


async def _refuse(params: dict[str, Any]) -> Any:
    raise ControlError("no", "not today")


METHODS: dict[str, Method] = {"echo": _echo, "refuse": _refuse}


async def _talk(folder: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send raw lines to a served socket and give back as many replies."""
    listener = bind_unix_socket(folder / "wg0.sock")
    replies = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener, METHODS)
            stream = await trio.open_unix_socket(folder / "wg0.sock")
            async with stream:
                await stream.send_all(b"".join(line + b"\n" for line in lines))
                buffer = b""
                while buffer.count(b"\n") < len(lines):
                    buffer += await stream.receive_some()
                replies = [json.loads(line) for line in buffer.splitlines()]
            nursery.cancel_scope.cancel()
    return replies


def test_requests_are_answered_in_order_with_their_ids(folder: Path) -> None:
    first, second = trio.run(
        _talk,
        folder,
        b'{"v": 1, "id": 1, "method": "echo", "params": {"a": [1, 2]}}',
        b'{"v": 1, "id": "x", "method": "refuse"}',
    )
    assert first == {"v": 1, "id": 1, "result": {"a": [1, 2]}}
    assert second == {"v": 1, "id": "x", "error": {"code": "no", "message": "not today"}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "syntax"),
        (b"{", "syntax"),
        (b"\xff\xfe", "syntax"),
        (b"[1]", "syntax"),
        (b'{"v": 2, "method": "echo"}', "version"),
        (b'{"v": 1, "method": "echo", "params": 3}', "syntax"),
        (b'{"v": 1, "method": "format_disk"}', "unknown_method"),
        (b"[" * 100_000, "syntax"),
    ],
)
def test_nonsense_is_refused_and_the_connection_stays(folder: Path, line: bytes, code: str) -> None:
    refused, answered = trio.run(
        _talk, folder, line, b'{"v": 1, "id": 5, "method": "echo", "params": {}}'
    )
    assert refused["error"]["code"] == code
    assert answered == {"v": 1, "id": 5, "result": {}}


def test_socket_is_for_its_owner_alone(folder: Path) -> None:
    with bind_unix_socket(folder / "deep" / "wg0.sock") as listener:
        assert listener.getsockname()
        assert stat.S_IMODE((folder / "deep" / "wg0.sock").stat().st_mode) == 0o600


def test_stale_socket_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    path = folder / "wg0.sock"
    bind_unix_socket(path).close()
    with bind_unix_socket(path), pytest.raises(OSError, match="listening") as refused:
        bind_unix_socket(path)
    assert refused.value.errno == errno.EADDRINUSE


def test_client_talks_to_a_served_socket(folder: Path) -> None:
    async def main() -> None:
        listener = bind_unix_socket(folder / "wg0.sock")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, METHODS)

                def ask() -> None:
                    with TunnelClient("wg0") as client:
                        assert client.call("echo", x=1) == {"x": 1}
                        with pytest.raises(ControlError, match="not today"):
                            client.call("refuse")
                        with pytest.raises(ControlError, match="the methods are"):
                            client.call("nothing")

                await trio.to_thread.run_sync(ask)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_client_says_when_nobody_is_there(folder: Path) -> None:
    with pytest.raises(NotRunningError, match="no tunnel named wg9 is running"):
        TunnelClient("wg9")
    bind_unix_socket(folder / "wg8.sock").close()
    with pytest.raises(NotRunningError):
        TunnelClient("wg8")
    assert run_folder.running_names() == ["wg8"]


def test_client_says_when_the_daemon_hangs_or_ends(folder: Path) -> None:
    listener = bind_unix_socket(folder / "wg0.sock")
    listener.setblocking(True)
    with listener:
        with TunnelClient("wg0", timeout=0.05) as client, pytest.raises(ControlError) as hung:
            client.call("echo")
        assert hung.value.code == "timeout"
        with TunnelClient("wg0") as client:
            listener.accept()[0].close()
            connection, _ = listener.accept()
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            with pytest.raises(ControlError) as closed:
                client.call("echo")
        assert closed.value.code == "closed"
