"""The client of a container engine, against one that answers as it is told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tunnel.errors import unwrapped
from tunnel.host.container_engine import Container, find_container, socket_of, starts
from tunnel.host.errors import HostError

ID = "4f5e" * 16
INSPECTED = {
    "Id": ID,
    "Name": "/web",
    "State": {"Running": True, "Pid": 1234},
    "HostConfig": {"NetworkMode": "none"},
    "ResolvConfPath": "/var/lib/docker/resolv.conf",
}
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@asynccontextmanager
async def engine(path: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """One that sends these pieces to each that asks, and the requests that have come."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            asked.append(await stream.receive_some())
            for answer in answers:
                await stream.send_all(answer)
                await trio.testing.wait_all_tasks_blocked()

    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(str(path))
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
        yield asked
        nursery.cancel_scope.cancel()


def ask(tmp_path: Path, *answers: bytes) -> Container | None:
    async def main() -> Container | None:
        path = tmp_path / "engine.sock"
        async with engine(path, *answers) as asked:
            found = await find_container(str(path), "we/b")
        assert asked[0].startswith(b"GET /containers/we%2Fb/json HTTP/1.0\r\n")
        return found

    with unwrapped(HostError):
        return trio.run(main)


def test_a_container_that_runs(tmp_path: Path) -> None:
    body = json.dumps(INSPECTED).encode()
    found = ask(tmp_path, OK + body[:7], body[7:])
    assert found == Container(ID, "web", 1234, "none", "/var/lib/docker/resolv.conf")


def test_one_that_does_not_run_and_one_that_is_not_there(tmp_path: Path) -> None:
    state = {"State": {"Running": False, "Pid": 1234}}
    found = ask(tmp_path, OK + json.dumps(INSPECTED | state).encode())
    assert found is not None
    assert found.pid == 0
    (tmp_path / "engine.sock").unlink()
    assert ask(tmp_path, b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "No such container"}') is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'HTTP/1.0 500 Oops\r\n\r\n{"message": "no disk"}', "no disk"),
        (OK + b"[]", "not one of a container"),
        (OK + b'{"Id": 7}', "not one of a container"),
        (OK + b"{" * 100_000, "not one of a container"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes, reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        ask(tmp_path, answer)


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"No such file or directory \(start the engine"):
        trio.run(find_container, str(tmp_path / "none.sock"), "web")
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="Connection refused"):
        trio.run(find_container, str(tmp_path / "file"), "web")


def collect(tmp_path: Path, *answers: bytes) -> int:
    async def main() -> int:
        path = tmp_path / "engine.sock"
        async with engine(path, *answers) as asked, aclosing(starts(str(path))) as found:
            count = sum([1 async for _ in found])
        assert b"%22event%22%3A+%5B%22start%22%5D" in asked[0]
        return count

    with unwrapped(HostError):
        return trio.run(main)


def test_each_start_is_one_after_the_subscription(tmp_path: Path) -> None:
    assert collect(tmp_path, OK, b'{"status": "start"}\n', b'{"status": "start"}\n') == 3


def test_a_subscription_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"HTTP/1\.0 403 Forbidden"):
        collect(tmp_path, b"HTTP/1.0 403 Forbidden\r\n\r\n")


def test_which_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert socket_of("unix:///run/user/1/docker.sock") == "/run/user/1/docker.sock"
    for wrong in ("tcp://192.0.2.1:2375", "ssh://host", "/var/run/docker.sock", "unix://x"):
        with pytest.raises(HostError, match="has to run on this machine"):
            socket_of(wrong)
    monkeypatch.setattr("tunnel.host.container_engine.SOCKETS", ("/none", "/nor-this"))
    assert socket_of("") == "/none"
