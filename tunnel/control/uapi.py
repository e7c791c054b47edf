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
than 0, not at all; one that the client did not finish was never made. If the daemon itself fails,
the errno says why: ENOMEM, EMFILE, or EIO for a defect.

Changes and answers of a hundred thousand allowed IPs are worked on in slices of a millisecond:
packets pass in between. A `get` and a `set` wait for each other, so an answer is never half old.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import trio

from tunnel.control.clients import Client
from tunnel.control.connections import (
    Failures,
    InternalError,
    Lines,
    LineTooLongError,
    serve_connections,
)
from tunnel.control.timeslice import Pace
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_grammar import MAX_LINE, Parser, UapiError, render_state
from tunnel.engine import Interface
from tunnel.errors import TunnelError

log = logging.getLogger("tunnel")

MAX_SET = 64 * 1024 * 1024
"""Bytes of one `set`: more than a million allowed IPs. What comes after is read and thrown away."""

_PART = 65_536
"""Bytes of an answer that are sent at a time."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a `get` is answered from."""

    interface: Interface
    listen_port: int
    fwmark: int


class UapiDevice(Protocol):
    """What is served: an interface's state, and the way to change it."""

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """The state; no `apply` changes it inside. Raises UapiError if there is none."""

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        """Apply all of `changes` in order. Raises UapiError, UdpError: then nothing has changed."""


async def serve(listener: socket.socket, device: UapiDevice) -> None:
    """Answer on `listener` until cancelled."""
    server = _Server(device)
    await serve_connections(listener, server.serve_connection, server.failures)


class _Server:
    def __init__(self, device: UapiDevice) -> None:
        self._device = device
        self.failures = Failures("socket for wg")

    async def serve_connection(self, stream: Client) -> None:
        lines = Lines(stream, MAX_LINE)
        while True:
            match await _read_untrusted(lines):
                case "get=1":
                    for part in await self._get(lines):
                        await stream.send_all(part)
                case "set=1":
                    await stream.send_all(await self._set(lines))
                case _:
                    return

    async def _get(self, lines: Lines) -> list[bytes]:
        trailing = False
        while await _read_untrusted(lines):
            trailing = True
        if trailing:
            return [_errno(errno.EINVAL)]
        try:
            with self.failures.contained("get"):
                return await self._render()
        except TunnelError as error:
            return [_errno(_number(error))]

    async def _render(self) -> list[bytes]:
        """The answer to a `get`, in parts to be sent when changes are free again: a client that
        does not read holds up only itself."""
        pace = Pace()
        parts: list[bytes] = []
        part = bytearray()
        async with self._device.reading() as state:
            for piece in render_state(state.interface, state.listen_port, state.fwmark):
                part += piece.encode("ascii", "replace")
                if len(part) >= _PART:
                    parts.append(bytes(part))
                    part.clear()
                await pace.step()
        return [*parts, bytes(part) + _errno(0)]

    async def _set(self, lines: Lines) -> bytes:
        try:
            with self.failures.contained("set"):
                changes = await _read_changes_untrusted(lines)
        except TunnelError as error:
            # `wg` writes all of a `set` before it reads the answer.
            while await _read_untrusted(lines):
                pass
            return _refused(error)
        try:
            with self.failures.contained("set"):
                await self._device.apply(changes)
        except TunnelError as error:
            return _refused(error)
        return _errno(0)


async def _read_changes_untrusted(lines: Lines) -> Sequence[DeviceChange]:
    """The lines of a `set` up to the empty one. Raises UapiError in the middle of them."""
    parser = Parser()
    pace = Pace()
    size = 0
    while line := await _read_untrusted(lines):
        size += len(line) + 1
        if size > MAX_SET:
            raise UapiError(errno.E2BIG, f"a set of more than {MAX_SET} bytes")
        parser.feed_untrusted(line)
        await pace.step()
    return parser.changes


def _refused(error: TunnelError) -> bytes:
    if not isinstance(error, InternalError):
        log.warning("a set by wg was refused, nothing was changed: %s", error)
    # wg expects the number with this sign here, and with the other one in the answer to a get.
    return _errno(-_number(error))


def _number(error: TunnelError) -> int:
    number: int | None = getattr(error, "errno", None)
    return number or errno.EIO


def _errno(number: int) -> bytes:
    return f"errno={number}\n\n".encode("ascii")


async def _read_untrusted(lines: Lines) -> str:
    """The next line, empty at the end of an operation.

    Raises BrokenResourceError where there is none: the connection is of no more use then.
    """
    try:
        line = await lines.read_untrusted()
    except (LineTooLongError, MemoryError):
        line = None
    if line is None:
        raise trio.BrokenResourceError
    # Any bytes are characters in this encoding; the parser refuses the wrong ones.
    return line.decode("latin-1")
