"""The socket that `wg` talks to: WireGuard's UAPI served on /run/wireguard/NAME.sock.

A `set` is read whole before wgset.py carries it out. Both directions are worked off in slices, and
packets get their turn in between.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import trio

from tunnel import wgset
from tunnel.control import uapi
from tunnel.control.connections import serve_connections
from tunnel.control.json_socket import bind_unix_socket
from tunnel.control.uapi import SetParser, UapiError
from tunnel.engine import Engine
from tunnel.errors import DaemonError
from tunnel.io.errors import UdpError

log = logging.getLogger("tunnel")

RUN_FOLDER = Path("/run/wireguard")
"""Where `wg` looks for sockets."""

SLICE = 250
"""Lines between two turns of the event loop: one to two milliseconds."""

PATIENCE = 10.0
"""Seconds that a set waits for a reload to end, or for the hooks of a tunnel that goes down."""

_READ = 16384


def socket_path(name: str) -> Path:
    """Where the daemon of interface `name` answers `wg`."""
    return RUN_FOLDER / f"{name}.sock"


@contextlib.asynccontextmanager
async def wireguard_socket(
    name: str, running: Callable[[], Engine], changing: trio.Lock
) -> AsyncIterator[None]:
    """Serve `wg` for the time of the `async with`.

    `running` gives the engine or raises DaemonError; `changing` is held by whoever changes it.
    A tunnel works without: where the socket cannot be made, the log says so and that is all.
    """
    path = socket_path(name)
    try:
        listener = bind_unix_socket(path)
    except OSError as error:
        log.warning("wg cannot be used on %s: %s: %s", name, path, error.strerror)
        yield
        return
    server = Server(running, changing)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, listener, server.serve_connection)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
        path.unlink(missing_ok=True)


class Server:
    """Answers the requests of one connection after the other. See `wireguard_socket`."""

    def __init__(self, running: Callable[[], Engine], changing: trio.Lock) -> None:
        self._running = running
        self._changing = changing

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        """Answer until the client ends, or asks for something that is neither get nor set."""
        lines = _Lines(stream)
        while (operation := await lines.read_untrusted()) is not None:
            if operation == b"get=1" and await lines.read_untrusted() == b"":
                await self._get(stream)
            elif operation == b"set=1":
                number = await self._set(lines)
                if number is None:
                    return
                await stream.send_all(uapi.status_of(number, of_set=True))
            else:
                return

    async def _get(self, stream: trio.SocketStream) -> None:
        try:
            engine = self._running()
        except DaemonError:
            await stream.send_all(uapi.status_of(errno.ENODEV, of_set=False))
            return
        part: list[str] = []
        for line in _state_lines(engine):
            part.append(line)
            if len(part) == SLICE:
                await stream.send_all(("\n".join(part) + "\n").encode())
                await trio.lowlevel.checkpoint()
                part.clear()
        text = "".join(f"{line}\n" for line in part)
        await stream.send_all(text.encode() + uapi.status_of(0, of_set=False))

    async def _set(self, lines: _Lines) -> int | None:
        """Read a set to its end and do it; the error number, None if the client left before."""
        parser = SetParser()
        refused: UapiError | None = None
        while (line := await lines.read_untrusted()) != b"":
            if line is None:
                return None
            if refused is None:
                try:
                    parser.read_untrusted(line)
                except UapiError as error:
                    refused = error
        try:
            if refused is not None:
                raise refused
            with trio.fail_after(PATIENCE):
                await self._changing.acquire()
            try:
                await wgset.carry_out(self._running(), parser.change)
            finally:
                self._changing.release()
        except trio.TooSlowError:
            return errno.EBUSY
        except DaemonError:
            return errno.ENODEV
        except (UapiError, UdpError) as error:
            log.warning("a set by wg was refused, everything stays as it was: %s", error)
            return error.errno or errno.EINVAL
        return 0


def _state_lines(engine: Engine) -> Iterator[str]:
    protocol, udp = engine.interface, engine.udp
    yield from uapi.device_lines(protocol.private_key, udp.port, udp.fwmark)
    for peer in list(protocol.peers.values()):
        yield from uapi.peer_lines(peer)
        for network in protocol.allowed_ips.iter_of(peer):
            yield f"allowed_ip={network}"


class _Lines:
    """The lines of a connection; other tasks have their turn after every slice."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._count = 0

    async def read_untrusted(self) -> bytes | None:
        """The next line; None at the end, or when it is longer than `MAX_LINE`."""
        self._count += 1
        if self._count % SLICE == 0:
            await trio.lowlevel.checkpoint()
        buffer = self._buffer
        while (newline := buffer.find(b"\n", 0, uapi.MAX_LINE + 1)) < 0:
            if len(buffer) > uapi.MAX_LINE:
                return None
            data = await self._stream.receive_some(_READ)
            if not data:
                return None
            buffer += data
        line = bytes(buffer[:newline])
        del buffer[: newline + 1]
        return line
