"""Docker's requests over a socket: what is no request, too large, or breaks off."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.docker_driver import NETWORK, Scene, creation, of_end
from tunnel.containers.docker import http, plugin
from tunnel.containers.docker.docker_api import DockerApi
from tunnel.containers.docker.server import Requests
from tunnel.containers.errors import ContainerError
from tunnel.control.connections import Failures
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.host.errors import HostError

Talk = Callable[[trio.SocketStream], Awaitable[None]]


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: plugin\r\nAccept: {http.TYPE}\r\n"
    head += f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


async def answer(stream: trio.SocketStream) -> tuple[int, Any]:
    """The status and the JSON of the next answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some(1)
    head = data.decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r")[0])
    while len(data) < len(head) + length:
        data += await stream.receive_some(1)
    assert http.TYPE in head
    return int(head.split()[1]), json.loads(data[len(head) :])


def serving(folder: Path, talk: Talk, scene: Scene | None = None) -> Scene:
    """Serve a scene, have `talk` on a connection, and return the scene."""
    found = scene or Scene(folder / "state")
    failures = Failures("test")
    requests = Requests(found.driver, failures, lambda: None)

    async def main() -> None:
        listener = bind_unix_socket(folder / "sock")
        with trio.fail_after(20), listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.serve, listener, requests.answer, failures)
                async with await trio.open_unix_socket(str(folder / "sock")) as stream:
                    await talk(stream)
                nursery.cancel_scope.cancel()

    trio.run(main)
    return found


def test_one_connection_has_many_requests(tmp_path: Path) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(post("/Plugin.Activate", b""))
        assert await answer(stream) == (200, {"Implements": ["NetworkDriver", "IpamDriver"]})
        # As Docker sends it: in pieces.
        chunks = json.dumps(creation()).encode()
        head = b"POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: x\r\n"
        await stream.send_all(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (chunks[:50], chunks[50:]):
            await stream.send_all(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await stream.send_all(b"0\r\n\r\n")
        assert await answer(stream) == (200, {})

    assert set(serving(tmp_path, talk).driver.state.networks) == {NETWORK}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/NetworkDriver.Join", b"", 400, "without its body.* give the command again"),
        ("/NetworkDriver.Join", b"{", 400, "the body is not JSON"),
        ("/NetworkDriver.Join", b"[" * 100_000, 400, "the body is not JSON"),
        ("/NetworkDriver.Join", b"[]", 400, "is not a JSON object"),
        ("/NetworkDriver.Join", b"{}", 400, "NetworkID is not an identifier"),
        ("/NetworkDriver.Join", b'{"NetworkID": "../../etc/x"}', 400, "NetworkID"),
        ("/NetworkDriver.Join", b'{"NetworkID": 5}', 400, "NetworkID is not a str"),
        (
            "/NetworkDriver.Join",
            json.dumps(of_end()).encode(),
            200,
            f"network {NETWORK:.12} is not known here",
        ),
        ("/IpamDriver.RequestPool", b'{"Pool": "10.0.0.1/8"}', 400, "Pool: .* has host bits set"),
        ("/IpamDriver.RequestPool", b"{}", 200, "--ipam-opt conf=NAME"),
        ("/NetworkDriver.FreeNetwork", b"{}", 404, "there is no method"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, path: str, body: bytes, status: int, text: str
) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(post(path, body))
        found, data = await answer(stream)
        assert found == status
        # Docker reads the one of a network driver, and the other of what gives addresses.
        assert data["Err"] == data["Error"]
        with pytest.raises(ContainerError, match=text):
            raise ContainerError(data["Err"])
        await stream.send_all(post("/Plugin.Activate", b""))
        assert (await answer(stream))[0] == 200, "the connection goes on"

    serving(tmp_path, talk)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, 431),
        (post("/NetworkDriver.Join", b"x" * (http.MAX_BODY + 1)), 413),
        (b"GET /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
def test_what_is_no_request_is_refused(tmp_path: Path, sent: bytes, status: int) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent)
            assert (await answer(stream))[0] == status
            nursery.cancel_scope.cancel()

    serving(tmp_path, talk)


def test_a_request_that_breaks_off_changes_nothing(tmp_path: Path) -> None:
    body = json.dumps(creation()).encode()

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(post("/NetworkDriver.CreateNetwork", body[:-5], len(body)))
        await stream.aclose()
        async with await trio.open_unix_socket(str(tmp_path / "sock")) as other:
            await other.send_all(post("/NetworkDriver.GetCapabilities", b""))
            assert (await answer(other))[1]["Scope"] == "local"

    scene = serving(tmp_path, talk)
    assert (scene.driver.state.networks, scene.wiring.standing) == ({}, {})


def test_a_defect_fails_one_request_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "state")

    def fail(step: str) -> None:
        raise ZeroDivisionError("a defect")

    async def talk(stream: trio.SocketStream) -> None:
        scene.wiring.fail = fail
        await stream.send_all(post("/NetworkDriver.CreateNetwork", json.dumps(creation()).encode()))
        status, data = await answer(stream)
        assert status == 200
        assert "see the daemon's log" in data["Err"]
        scene.wiring.fail = lambda step: None
        await stream.send_all(post("/NetworkDriver.CreateNetwork", json.dumps(creation()).encode()))
        assert await answer(stream) == (200, {})

    serving(tmp_path, talk, scene)


def test_docker_is_asked_for_a_network_and_its_names(tmp_path: Path) -> None:
    ends = {"f" * 64: {"Name": "Web", "EndpointID": "e1", "IPv4Address": "10.90.0.2/24"}}
    pages = {
        f"/networks/{NETWORK}": {"Name": "net", "Containers": ends},
        f"/containers/{'f' * 64}/json": {
            "NetworkSettings": {"Networks": {"net": {"NetworkID": NETWORK, "Aliases": ["db"]}}}
        },
    }
    asked = []

    async def serve(stream: trio.SocketStream) -> None:
        target = (await stream.receive_some(4096)).split()[1].decode()
        asked.append(target)
        body = json.dumps(pages.get(target, {"message": "no"})).encode()
        status = b"200 OK" if target in pages else b"404 Not Found"
        await stream.send_all(b"HTTP/1.0 " + status + b"\r\n\r\n" + body)
        await stream.aclose()

    async def main() -> None:
        listener = trio.SocketListener(
            trio.socket.from_stdlib_socket(bind_unix_socket(tmp_path / "docker.sock"))
        )
        api = DockerApi(str(tmp_path / "docker.sock"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            for _ in range(2):
                view = await api.network(NETWORK, names=True)
                assert view is not None
                assert view.endpoints == {"e1"}
                assert set(view.addresses) == {"web", "db", "f" * 12}
            assert len(asked) == 3, "names of an end stay the same"
            assert await api.network("0" * 64) is None
            nursery.cancel_scope.cancel()
        with pytest.raises(HostError, match="ask the container engine at"):
            await DockerApi(str(tmp_path / "nowhere")).network(NETWORK)

    trio.run(main)


def test_a_socket_that_systemd_passes_on_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = bind_unix_socket(tmp_path / "passed")
    monkeypatch.setattr(plugin, "_FIRST_PASSED", os.dup(passed.fileno()))
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    with plugin.listening(tmp_path / "own", environment) as listener:
        assert listener.getsockname() == str(tmp_path / "passed")
        assert environment == {}
    passed.close()
    assert (tmp_path / "passed").exists(), "it is systemd's"
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with plugin.listening(tmp_path / "own", environment) as listener:
        assert listener.getsockname() == str(tmp_path / "own")
        with (
            pytest.raises(ContainerError, match="systemctl status tunnel-docker-plugin"),
            plugin.listening(tmp_path / "own", {}),
        ):
            pass
    assert not (tmp_path / "own").exists()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
        client.connect(str(tmp_path / "own"))
