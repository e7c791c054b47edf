"""`tunnel.open_asyncio`: a tunnel for the time of an `async with`, inside an asyncio program."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import ParamSpec, Self, TypeVar

from tunnel.api.events import AnyEvent
from tunnel.api.running import EventReader, Tunnel
from tunnel.api.thread import TunnelThread
from tunnel.config import TunnelConfig
from tunnel.control.messages.changes import Change
from tunnel.control.messages.status import TunnelStatus
from tunnel.errors import DaemonError

P = ParamSpec("P")
T = TypeVar("T")


class AsyncioEvents:
    """The events of a tunnel, as an asynchronous iterator; it ends with the tunnel."""

    def __init__(self, tunnel: AsyncioTunnel, stream: EventReader) -> None:
        self._tunnel = tunnel
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyEvent:
        found = await self._tunnel._call(self._next)
        if found is None:
            raise StopAsyncIteration
        return found

    async def _next(self) -> AnyEvent | None:
        # No future takes this exception.
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            return None


class AsyncioTunnel:
    """A tunnel that is up; made by `tunnel.open_asyncio`. As `tunnel.Tunnel`, for asyncio.

    If a task is cancelled while it awaits a method, the method completes first.
    """

    def __init__(self, thread: TunnelThread, tunnel: Tunnel) -> None:
        self._thread = thread
        self._tunnel = tunnel

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._tunnel.name

    @property
    def config(self) -> TunnelConfig:
        """The conf applied last."""
        return self._tunnel.config

    async def status(self, *, secrets: bool = False) -> TunnelStatus:
        """What it looks like now. With `secrets`, private and preshared keys too."""
        return await self._call(self._tunnel.status, secrets=secrets)

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncioEvents]:
        """Events from now on, for the time of an `async with`, as objects of `tunnel.events`."""
        subscription = self._tunnel.events()

        async def enter() -> EventReader:
            return subscription.__enter__()

        async def leave() -> None:
            subscription.__exit__(None, None, None)

        stream = await self._call(enter)
        try:
            yield AsyncioEvents(self, stream)
        finally:
            # With the tunnel, its subscriptions have ended.
            with contextlib.suppress(DaemonError):
                await self._call(leave)

    async def diff(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """What `reload` would change."""
        return await self._call(self._tunnel.diff, config)

    async def reload(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """Make it equal to `config`, by default to its file as it is now; what was changed."""
        return await self._call(self._tunnel.reload, config)

    async def save(self) -> bool:
        """Write the running state into the conf, comments kept; whether it had to change."""
        return await self._call(self._tunnel.save)

    async def wait_closed(self) -> None:
        """Return when it has gone down."""
        await self._call(self._tunnel.wait_closed)

    async def _call(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        call = self._thread.start(function, *args, **kwargs)
        return await _result(call.future, lambda: self._thread.cancel(call))


@contextlib.asynccontextmanager
async def open_asyncio(
    config: TunnelConfig | str | os.PathLike[str],
) -> AsyncIterator[AsyncioTunnel]:
    """Set up the tunnel of `config`, as `tunnel.open` does, in an asyncio program; known as
    `tunnel.open_asyncio`.

    It runs in a thread with a trio loop of its own, which is gone on leaving.
    """
    thread = TunnelThread(config)
    try:
        yield AsyncioTunnel(thread, await _result(thread.ready, thread.stop))
    finally:
        thread.stop()
        try:
            await _result(thread.done, thread.stop)
        finally:
            thread.join()


async def _result(future: Future[T], cancel: Callable[[], object]) -> T:
    """The result of what runs in the other thread. If the task is cancelled, that is first told to
    end by `cancel`, and waited for.
    """
    waiting = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError as error:
            cancelled = error
            cancel()
    if cancelled is not None:
        waiting.exception()
        raise cancelled
    return waiting.result()
