"""The process outside, as it speaks to the one inside."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import trio

from tunnel.config import TunnelConfig
from tunnel.containers import inside, messages
from tunnel.containers.errors import ContainerError
from tunnel.containers.inside import Place
from tunnel.containers.messages import ChannelMessage


class Inside:
    """The process inside. Make it before there are threads; close it when all is over."""

    def __init__(self, config: TunnelConfig, place: Place, *, as_user: bool) -> None:
        self.as_user = as_user
        self.netns = 0
        self.pid, self._channel = inside.fork(config, place, as_user=as_user)
        self._lock = trio.Lock()
        self._status: int | None = None

    async def ready(self) -> None:
        """Wait until the namespaces are there. Raises ContainerError."""
        self._channel.setblocking(False)
        await self._receive()
        self.netns = os.stat(f"/proc/{self.pid}/ns/net").st_ino

    async def set_up(self, mtu: int) -> tuple[int, socket.socket]:
        """Have the tunnel's interface set up inside: its descriptor, and a socket to ask after it.

        Raises ContainerError.
        """
        tun, control = (await self._ask({"request": "set_up", "mtu": mtu})).descriptors
        return tun, socket.socket(fileno=control)

    async def socket(self, family: int, kind: int) -> socket.socket:
        """A socket that was made inside. Raises ContainerError."""
        (found,) = (
            await self._ask({"request": "socket", "family": int(family), "kind": int(kind)})
        ).descriptors
        made = socket.socket(fileno=found)
        made.setblocking(False)
        return made

    def close(self) -> None:
        """End all that runs inside, and wait until it is gone; idempotent. Blocks."""
        if self._status is not None:
            return
        self._channel.close()
        _, self._status = os.waitpid(self.pid, 0)
        # It has done so itself, unless it was killed.
        if self.netns:
            inside.end_all(self.netns)

    async def wait_gone(self) -> None:
        """Return when the process has ended, which it does by itself when it was killed only."""
        descriptor = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    async def _ask(self, body: dict[str, Any]) -> ChannelMessage:
        async with self._lock:
            with contextlib.suppress(OSError):  # the answer says why
                messages.send(self._channel, body)
            return await self._receive()

    async def _receive(self) -> ChannelMessage:
        message: ChannelMessage | None = None
        with contextlib.suppress(ConnectionError):
            while True:
                await trio.lowlevel.wait_readable(self._channel)
                try:
                    message = messages.receive(self._channel)
                    break
                except BlockingIOError:
                    continue
        if message is None:
            raise ContainerError(
                f"the process inside ({self.pid}) has ended; it may have been killed"
            )
        if "error" in message.body:
            raise ContainerError(str(message.body["error"]))
        return message
