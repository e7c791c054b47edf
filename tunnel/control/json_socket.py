"""tunnel's own control socket: one JSON object per line over a unix stream socket, root only.

Request     {"v": 1, "id": 7, "method": "status", "params": {…}}
Reply       {"v": 1, "id": 7, "result": …}
Refusal     {"v": 1, "id": 7, "error": {"code": "unknown_method", "message": "…"}}

A connection may carry any number of requests, answered in order. Protocol version 1; a request of
another version is refused with the code `version`. Wire limit: a line is at most 16 MiB.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

VERSION = 1
RUN_FOLDER = Path("/run/tunnel")
MAX_LINE = 16 * 1024 * 1024
MAX_CONNECTIONS = 32

Method = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlError(Exception):
    """A control request that could not be answered. `code` is one word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotRunningError(ControlError):
    """No daemon answers on the socket."""

    def __init__(self, name: str) -> None:
        super().__init__("not_running", f"no tunnel named {name} is running on this host")


def socket_path(name: str) -> Path:
    """Where the daemon of interface `name` listens."""
    return RUN_FOLDER / f"{name}.sock"


def running_names() -> list[str]:
    """Names of the interfaces whose control sockets exist, sorted; some may be stale."""
    return sorted(path.stem for path in RUN_FOLDER.glob("*.sock"))


def bind_unix_socket(path: Path, *, folder_mode: int = 0o755) -> socket.socket:
    """Listen on `path`, mode 0600, replacing a socket nobody listens on any more.

    Raises OSError(EADDRINUSE) when somebody does, and OSError as the kernel gives it otherwise.
    """
    path.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
            else:
                raise OSError(errno.EADDRINUSE, "another process is listening", str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(MAX_CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


async def serve(listener: socket.socket, methods: Mapping[str, Method]) -> None:
    """Answer requests on `listener` until cancelled; at most `MAX_CONNECTIONS` at a time."""
    limit = trio.CapacityLimiter(MAX_CONNECTIONS)
    acceptor = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with acceptor, trio.open_nursery() as nursery:
        while True:
            stream = await acceptor.accept()
            nursery.start_soon(_serve_connection, stream, methods, limit)


async def _serve_connection(
    stream: trio.SocketStream, methods: Mapping[str, Method], limit: trio.CapacityLimiter
) -> None:
    async with stream, limit:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for line in _lines(stream):
                reply = await _answer_untrusted(line, methods)
                await stream.send_all(json.dumps(reply).encode() + b"\n")


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    buffer = bytearray()
    while True:
        newline = buffer.find(b"\n")
        if newline >= 0:
            line = bytes(buffer[:newline])
            del buffer[: newline + 1]
            yield line
            continue
        if len(buffer) > MAX_LINE:
            return
        data = await stream.receive_some(65536)
        if not data:
            return
        buffer += data


async def _answer_untrusted(line: bytes, methods: Mapping[str, Method]) -> dict[str, Any]:
    request_id: Any = None
    try:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ControlError("syntax", f"not a JSON object on one line: {error}") from None
        if not isinstance(request, dict):
            raise ControlError("syntax", "a request is a JSON object")
        request_id = request.get("id")
        if request.get("v") != VERSION:
            raise ControlError("version", f"this daemon speaks version {VERSION}")
        params = request.get("params", {})
        if not isinstance(params, dict):
            raise ControlError("syntax", "params is a JSON object")
        method = methods.get(str(request.get("method")))
        if method is None:
            known = ", ".join(sorted(methods))
            raise ControlError("unknown_method", f"the methods are: {known}")
        result = await method(params)
    except ControlError as error:
        refusal = {"code": error.code, "message": str(error)}
        return {"v": VERSION, "id": request_id, "error": refusal}
    return {"v": VERSION, "id": request_id, "result": result}


class Client:
    """A blocking client of one daemon's control socket, for the command line and for scripts.

    Use as a context manager. Raises NotRunningError when nobody listens and ControlError for a
    refusal. `timeout` is in seconds and bounds each request.
    """

    def __init__(self, name: str, *, timeout: float = 10.0) -> None:
        self.name = name
        self._next_id = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(socket_path(name)))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NotRunningError(name) from None
        except PermissionError:
            self._socket.close()
            message = f"the control socket {socket_path(name)} is for root only: use sudo"
            raise ControlError("permission", message) from None
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._file.close()
        self._socket.close()

    def call(self, method: str, **params: Any) -> Any:
        """Send one request and return its result."""
        self._next_id += 1
        request = {"v": VERSION, "id": self._next_id, "method": method, "params": params}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._file.readline()
        except TimeoutError:
            raise ControlError("timeout", f"the daemon of {self.name} does not answer") from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            raise ControlError("closed", f"the daemon of {self.name} closed the connection")
        reply = json.loads(line)
        if "error" in reply:
            raise ControlError(reply["error"]["code"], reply["error"]["message"])
        return reply["result"]

    def peer_pid(self) -> int:
        """The daemon's process id, as the kernel knows it (SO_PEERCRED)."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def wait_closed(self, timeout: float) -> bool:
        """Wait until the daemon closes the connection, at most `timeout` seconds."""
        self._socket.settimeout(timeout)
        try:
            return self._file.read(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True
