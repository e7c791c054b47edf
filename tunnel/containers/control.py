"""The control socket of a run: it is shown like any tunnel, and further commands find it here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

from tunnel.config import TunnelConfig
from tunnel.containers.command import Namespaces
from tunnel.containers.outside import Inside
from tunnel.control import json_socket, unix_socket
from tunnel.control.broadcast import Events
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.status import TunnelStatus
from tunnel.daemon.lock import unwritable
from tunnel.device.device import Device
from tunnel.device.status import take_status

_METHODS_OF_A_DAEMON = ("down", "reload", "diff", "save", "attach", "detach")
_STREAMS = ("events", "keys", "trace", "carriers")


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a further command goes: into the namespaces of process `pid`."""

    pid: int
    as_user: bool


def find(name: str) -> Namespaces:
    """The namespaces of the run of that name. Raises ControlError where there is none. Blocks."""
    with TunnelClient(name) as client:
        try:
            found = client.call("join")
        except ControlError as error:
            if error.code != "unknown_method":
                raise
            raise ControlError(
                "state",
                f"{name} was set up by tunnel up, for the whole host: any command uses it; "
                "only those of tunnel run have a network to join",
            ) from None
    return Namespaces(int(found["pid"]), as_user=bool(found["as_user"]))


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket there, for the time of a `with`. Raises DaemonError."""
    try:
        listener = unix_socket.bind_unix_socket(path, folder_mode=0o700)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


async def serve(
    listener: socket.socket, config: TunnelConfig, device: Device, inside: Inside, feed: Events
) -> None:
    """Answer requests until cancelled."""

    async def ping(params: dict[str, Any]) -> bool:
        return True

    async def status(params: dict[str, Any]) -> TunnelStatus:
        secrets, paths = params.get("secrets") is True, params.get("paths") is True
        found = await take_status(device.engine, config, secrets=secrets, paths=paths)
        return dataclasses.replace(found, netns=f"/proc/{inside.pid}/ns/net")

    async def join(params: dict[str, Any]) -> Membership:
        return Membership(inside.pid, inside.as_user)

    def refusal() -> ControlError:
        return ControlError(
            "state",
            f"{config.name} is the network of a command, set up by tunnel run (process "
            f"{os.getpid()}): it goes down when the command ends, and takes no changes",
        )

    async def refuse_method(params: dict[str, Any]) -> NoReturn:
        raise refusal()

    @lru_cache(maxsize=1)
    def streams() -> dict[str, json_socket.Stream]:
        # Late: no command should wait for what traces and captures need.
        from tunnel.daemon.control import streams_of

        return streams_of(lambda: feed, lambda: device.engine)

    methods: dict[str, json_socket.Method] = {"ping": ping, "status": status, "join": join}
    methods |= dict.fromkeys(_METHODS_OF_A_DAEMON, refuse_method)
    await json_socket.serve(
        listener, methods, {name: partial(_stream, streams, name) for name in _STREAMS}
    )


def _stream(
    streams: Callable[[], dict[str, json_socket.Stream]], name: str, params: dict[str, Any]
) -> contextlib.AbstractContextManager[AsyncIterator[TunnelEvent]]:
    return streams()[name](params)
