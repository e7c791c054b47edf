"""The WireGuard UAPI: what `wg` and everything built on it speak to a userspace daemon.

    get=1                        private_key=…
                                 listen_port=51820
                                 public_key=…
                                 allowed_ip=10.0.0.2/32
                                 errno=0

    set=1
    public_key=…
    allowed_ip=10.0.0.3/32
                                 errno=0

Each operation ends with an empty line, and so does each answer. Any number of them may follow each
other on one connection; an unknown one closes it. A `set` is applied whole or, with an errno other
than 0, not at all; one that the client did not finish was never made.

Changes and answers of a hundred thousand allowed IPs are worked on in slices of a millisecond:
packets pass in between. A `get` and a `set` wait for each other, so an answer is never half old.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from tunnel.control.connections import serve_connections
from tunnel.control.timeslice import Pace
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_get import render
from tunnel.control.uapi_set import MAX_LINE, SetParser, UapiError
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.protocol import Interface

log = logging.getLogger("tunnel")

MAX_SET = 64 * 1024 * 1024
"""Bytes of one `set`: more than a million allowed IPs. What comes after is read and thrown away."""

_READ = _PART = 65_536
"""Bytes taken from the socket, and given to it, at a time."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a `get` tells of."""

    interface: Interface[Endpoint, Any]
    listen_port: int
    fwmark: int


class Device(Protocol):
    """What is served: an interface's state, and the way to change it."""

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """The state; no `apply` changes it inside. Raises UapiError if there is none."""

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        """Apply all of `changes` in order. Raises UapiError, UdpError: then nothing has changed."""


async def serve(listener: socket.socket, device: Device) -> None:
    """Answer on `listener` until cancelled."""

    async def handle(stream: trio.SocketStream) -> None:
        await _serve_connection(stream, device)

    await serve_connections(listener, handle)


async def _serve_connection(stream: trio.SocketStream, device: Device) -> None:
    lines = _Lines(stream)
    with contextlib.suppress(_HangUpError):
        while True:
            match await lines.read_untrusted():
                case "get=1":
                    for part in await _get(lines, device):
                        await stream.send_all(part)
                case "set=1":
                    await stream.send_all(await _set(lines, device))
                case _:
                    return


async def _get(lines: _Lines, device: Device) -> list[bytes]:
    trailing = False
    while await lines.read_untrusted():
        trailing = True
    if trailing:
        return [_errno(errno.EINVAL)]
    pace = Pace()
    parts: list[bytes] = []
    part = bytearray()
    try:
        async with device.reading() as state:
            for piece in render(state.interface, state.listen_port, state.fwmark):
                part += piece.encode("ascii", "replace")
                if len(part) >= _PART:
                    parts.append(bytes(part))
                    part.clear()
                await pace.step()
    except UapiError as error:
        return [_errno(error.errno)]
    # Sent when changes are free again: a client that does not read holds up only itself.
    return [*parts, bytes(part) + _errno(0)]


async def _set(lines: _Lines, device: Device) -> bytes:
    parser = SetParser()
    pace = Pace()
    lines.forget_size()
    refusal: UapiError | None = None
    while line := await lines.read_untrusted():
        # A refused `set` is read to its end: `wg` writes all of it before it reads the answer.
        if refusal is None:
            try:
                parser.feed_untrusted(line)
                if lines.size > MAX_SET:
                    raise UapiError(errno.E2BIG, f"a set of more than {MAX_SET} bytes")
            except UapiError as error:
                refusal = error
                parser = SetParser()
        await pace.step()
    try:
        if refusal is not None:
            raise refusal
        await device.apply(parser.changes)
    except (UapiError, UdpError) as error:
        log.warning("a set by wg was refused, everything stays as it was: %s", error)
        # wg takes the number with this sign here, and with the other one in the answer to a get.
        return _errno(-(error.errno or errno.EIO))
    return _errno(0)


def _errno(number: int) -> bytes:
    return f"errno={number}\n\n".encode("ascii")


class _HangUpError(Exception):
    """The connection ended in the middle of an operation, or has to be."""


class _Lines:
    """The lines of a connection, one at a time, without their ends."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""
        self._lines: list[str] = []
        self.size = 0
        """Bytes received since `forget_size`."""

    def forget_size(self) -> None:
        """Begin to count anew."""
        self.size = 0

    async def read_untrusted(self) -> str:
        """The next line, empty at the end of an operation.

        Raises _HangUpError at the end of the connection, and when no end of a line is in sight.
        """
        while not self._lines:
            if len(self._rest) > MAX_LINE:
                raise _HangUpError
            data = await self._stream.receive_some(_READ)
            if not data:
                raise _HangUpError
            self.size += len(data)
            *complete, self._rest = (self._rest + data).split(b"\n")
            # Whatever the bytes are, they are characters, and the parser refuses the wrong ones.
            self._lines = [line.decode("latin-1") for line in reversed(complete)]
        return self._lines.pop()
