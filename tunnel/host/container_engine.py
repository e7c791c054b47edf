"""What a container engine says of its containers: HTTP on its unix socket, as Docker's API has it.

podman serves the same. Requests are HTTP/1.0, whose answers end with the connection.
Source: https://docs.docker.com/reference/api/engine/, ContainerInspect and SystemEvents.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import trio

from tunnel.host.errors import HostError
from tunnel.linux.json_text import read_json
from tunnel.linux.processes import own_pid, peer_pid
from tunnel.linux.rights import Capability, raised

SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
"""Where engines listen by default; the first that is there is taken."""

PATIENCE = 10.0
"""Seconds for an answer."""

_MAX_ANSWER = 64 << 20
"""Bytes of an answer: a network has about 300 for each of its containers."""

_STATUS_LINE = re.compile(rb"HTTP/\S+ +(\d{3})(?!\d)")
_SOCKET = "give its socket: --docker-host unix:///PATH"
_NO_ANSWER = "see whether the engine works: docker ps, or podman ps"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer, and the process ID of the engine."""

    status: int
    body: bytes
    pid: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it is now. `pid` is that of its first process as this host sees it, 0 if it
    does not run; `network` its network mode; `resolv_conf` the file of the host that it reads.
    """

    id: str
    name: str
    pid: int
    network: str
    resolv_conf: str


def socket_of(host: str) -> str:
    """The socket that a value of DOCKER_HOST names; of none, that of the engine here.

    Raises HostError for an engine of another machine: its process IDs mean nothing on this one.
    """
    if not host:
        return next((path for path in SOCKETS if Path(path).is_socket()), SOCKETS[0])
    scheme, _, path = host.partition("://")
    if scheme != "unix" or not path.startswith("/") or not path.isprintable():
        raise HostError(
            "ask engine",
            host,
            "the engine has to run on this machine",
            "give its socket: --docker-host unix:///var/run/docker.sock",
        )
    return path


async def find_container(engine: str, name: str) -> Container | None:
    """The container of that name, ID, or beginning of an ID; None if there is none.

    Raises HostError when the engine at the socket `engine` cannot be asked, or refuses.
    """
    answer = await ask(engine, f"/containers/{quote(name, safe='')}/json")
    found = _container_untrusted(engine, answer)
    if found is not None and found.pid:
        here = await trio.to_thread.run_sync(own_pid, found.pid, answer.pid)
        found = replace(found, pid=here)
    return found


async def ask(engine: str, path: str) -> Answer:
    """What the engine at the socket `engine` answers to GET `path`. Raises HostError."""
    with trio.move_on_after(PATIENCE):
        async with await _request(engine, path) as stream:
            pid = peer_pid(stream.socket)
            data = bytearray()
            while piece := await _receive(engine, stream):
                data += piece
                if len(data) > _MAX_ANSWER:
                    raise _refused(engine, f"its answer has more than {_MAX_ANSWER} bytes")
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        return Answer(_status(engine, head), body, pid)
    raise _refused(engine, f"no answer in {PATIENCE:.0f} seconds", _NO_ANSWER)


async def starts(engine: str) -> AsyncGenerator[None]:
    """Yield once it is subscribed, and each time that a container starts; until the engine ends.

    Raises HostError when it cannot be asked.
    """
    # What happens between its answer and its subscription is not lost so.
    since = f"{time.time() - 1:.3f}"
    wanted = json.dumps({"type": ["container"], "event": ["start"]})
    query = urlencode({"since": since, "filters": wanted})
    stream = await _request(engine, f"/events?{query}")
    async with stream:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await _receive(engine, stream)
            if not data or len(head) > _MAX_ANSWER:
                raise _refused(engine, "the connection was closed without an answer", _NO_ANSWER)
            head += data
        if _status(engine, head) != 200:
            raise _refused(engine, head.split(b"\r\n", 1)[0].decode(errors="replace"))
        yield
        while await _receive(engine, stream):
            yield


async def _request(engine: str, path: str) -> trio.SocketStream:
    try:
        opened = await trio.to_thread.run_sync(_connect, engine)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(opened))
        await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
    except (OSError, trio.BrokenResourceError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        number = cause.errno or 0 if isinstance(cause, OSError) else 0
        reason = cause.strerror if isinstance(cause, OSError) else str(error)
        raise _refused(engine, reason or str(error), _remedy(number)) from error
    return stream


def _connect(engine: str) -> socket.socket:
    """A connection to it, whichever user it belongs to. In a thread: a right is of one."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(PATIENCE)
        with raised(Capability.DAC_OVERRIDE):
            opened.connect(engine)
    except BaseException:
        opened.close()
        raise
    return opened


async def _receive(engine: str, stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some())
    except trio.BrokenResourceError as error:
        raise _refused(engine, "the connection broke") from error


def _remedy(number: int) -> str:
    if number in (1, 13):
        return "run it as root, or get access to that socket (which is as good as root)"
    return f"start the engine, or {_SOCKET}"


def _refused(engine: str, reason: str, remedy: str = "") -> HostError:
    return HostError("ask the container engine at", engine, reason, remedy)


def _status(engine: str, head: bytes) -> int:
    found = _STATUS_LINE.match(head)
    if found is None:
        raise _refused(engine, "what listens there does not speak HTTP", _SOCKET)
    return int(found[1])


def _container_untrusted(engine: str, answer: Answer) -> Container | None:
    if answer.status == 404:
        return None
    try:
        document = read_json(answer.body)
        if answer.status != 200:
            raise _refused(engine, str(document.get("message", answer.status)))
        state, settings = document["State"], document["HostConfig"]
        return Container(
            id=_text(document, "Id"),
            name=_text(document, "Name").removeprefix("/"),
            pid=int(state["Pid"]) if state["Running"] else 0,
            network=_text(settings, "NetworkMode"),
            resolv_conf=str(document.get("ResolvConfPath") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(engine, f"its answer is not one of a container: {error!r}") from error


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no string")
    return value
