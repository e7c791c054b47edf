"""A daemon that only carries packets, as wireguard-go does: `wg` and `ip` do the rest.

`Parts.open` makes what a caller waits for: TUN device, UDP sockets and listening UAPI socket. It
needs no event loop, so that it may be done before the process goes into the background. `run` is
all the rest of its life: until the device or the socket is gone, SIGINT or SIGTERM.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trio

from tunnel.control import uapi
from tunnel.control.socket_file import SocketFile
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.datapath import Datapath
from tunnel.device import features, signals
from tunnel.device.event_log import EventLog
from tunnel.device.link_monitor import follow_link
from tunnel.device.uapi import EngineDevice, socket_path, stop_when_removed
from tunnel.engine import Engine
from tunnel.errors import DaemonError
from tunnel.io.errors import TunDeleted
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp

log = logging.getLogger("tunnel")

DEFAULT_MTU = 1420
"""What a new interface gets, as in the kernel: 1500 less the 80 bytes a tunnel costs at most."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon needs before it can run; `close` gives all of it back."""

    name: str
    tun: Tun
    udp: Udp
    listener: socket.socket
    file: SocketFile | None
    path: Datapath

    @classmethod
    def open(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Make the interface `name` and its UAPI socket, or take them over where
        WG_TUN_FD and WG_UAPI_FD name their descriptors.

        Raises TunnelError, and then nothing is left.
        """
        wanted = features.choose(environment=environment)
        path = features.load_datapath()
        with ExitStack() as undo:
            tun_fd = _descriptor(environment, "WG_TUN_FD")
            if tun_fd is None:
                tun = undo.enter_context(Tun.open(name, mtu=DEFAULT_MTU, offloads=wanted.tun))
            else:
                tun = undo.enter_context(Tun.adopt(tun_fd, offloads=wanted.tun))
            # The kernel has filled in a name such as wg%d.
            real_name = tun.name
            _refuse_automatic_addresses(real_name)
            udp = undo.enter_context(Udp.open(gso=wanted.gso, gro=wanted.gro))
            listener, file = _listen(real_name, _descriptor(environment, "WG_UAPI_FD"))
            undo.pop_all()
        return cls(real_name, tun, udp, listener, file, path)

    def close(self) -> None:
        """Remove socket and interface."""
        if self.file is not None:
            self.file.remove()
        self.listener.close()
        self.udp.close()
        self.tun.close()


def _refuse_automatic_addresses(name: str) -> None:
    """As in the kernel's WireGuard: the interface has the addresses it is given and no others."""
    # Without IPv6 there is no such file, and nothing to refuse.
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode").write_text("1")


def _descriptor(environment: Mapping[str, str], variable: str) -> int | None:
    text = environment.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise DaemonError(f"{variable} is the number of an open descriptor, not {text!r}")
    return int(text)


def _listen(name: str, descriptor: int | None) -> tuple[socket.socket, SocketFile | None]:
    if descriptor is None:
        path = socket_path(name)
        try:
            listener = bind_unix_socket(path)
        except OSError as error:
            raise DaemonError(
                f"cannot listen on {path}: {error.strerror or error}; "
                "stop the daemon that does, or be root"
            ) from error
        return listener, SocketFile(path)
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listener.family != socket.AF_UNIX or not listening:
            listener.detach()
            raise DaemonError(f"WG_UAPI_FD: descriptor {descriptor} is no listening unix socket")
    except OSError as error:
        raise DaemonError(
            f"WG_UAPI_FD: descriptor {descriptor} is no socket: {error.strerror}"
        ) from error
    listener.setblocking(False)
    listener.set_inheritable(False)
    bound = listener.getsockname()
    # One without a name in the file system cannot disappear from there.
    return listener, SocketFile(Path(bound)) if isinstance(bound, str) and bound else None


async def run(parts: Parts, ready: Callable[[], None] = lambda: None) -> None:
    """Carry packets until told to stop, or until device or socket are gone; close `parts`."""
    try:
        event_log = EventLog()
        engine = Engine(
            tun=parts.tun,
            udp=parts.udp,
            mtu=DEFAULT_MTU,
            path=parts.path,
            on_event=event_log.log,
        )
        # Unknown yet; `follow_link` tells before anything is read.
        engine.set_link_up(False)
        async with trio.open_nursery() as nursery:
            stop = nursery.cancel_scope.cancel
            await nursery.start(signals.follow, stop, _nothing_to_reload)
            await nursery.start(engine.run)
            nursery.start_soon(event_log.run)
            nursery.start_soon(follow_link, engine, parts.tun)
            device = EngineDevice(lambda: engine, trio.Lock())
            nursery.start_soon(uapi.serve, parts.listener, device)
            if parts.file is not None:
                nursery.start_soon(stop_when_removed, parts.file, stop)
            log.info("%s: ready, UDP port %d", parts.name, parts.udp.port)
            ready()
    except* TunDeleted:
        log.info("%s was deleted: leaving", parts.name)
    finally:
        parts.close()
    log.info("%s: ended", parts.name)


async def _nothing_to_reload() -> None:
    log.info("SIGHUP: there is no conf to read again; use wg setconf or wg syncconf")
