"""`tunnel.open`: a tunnel for the time of an `async with`, inside a trio program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Self

import trio

from tunnel import config as confs
from tunnel.api.events import AnyEvent, typed
from tunnel.config import TunnelConfig
from tunnel.control.broadcast import EventQueue
from tunnel.control.messages.changes import Change
from tunnel.control.messages.status import TunnelStatus
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.run import run
from tunnel.errors import unwrapped


class EventReader:
    """The events of a tunnel, as an asynchronous iterator; it ends with the tunnel."""

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyEvent:
        return typed(await anext(self._queue))


class Tunnel:
    """A tunnel that is up; made by `tunnel.open`.

    Methods raise DaemonError once it has gone down, for instance because the interface was
    deleted from outside; `wait_closed` waits for that.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._closed = trio.Event()

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._daemon.name

    @property
    def config(self) -> TunnelConfig:
        """The conf applied last."""
        return self._daemon.config

    async def status(self, *, secrets: bool = False) -> TunnelStatus:
        """What it looks like now. With `secrets`, private and preshared keys too."""
        return await self._daemon.status(secrets=secrets)

    @contextlib.contextmanager
    def events(self) -> Iterator[EventReader]:
        """Events from now on, for the time of a `with`, as objects of `tunnel.events`:

            with t.events() as happening:
                async for event in happening: ...

        A slow reader loses events, and learns how many; packets never wait for it.
        """
        with self._daemon.feed.subscribe(EventQueue()) as queue:
            yield EventReader(queue)

    async def diff(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """What `reload` would change."""
        return (await self._daemon.plan_reload(config)).changes

    async def reload(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """Make it equal to `config`, by default to its file as it is now; what was changed.

        Peers that did not change keep their sessions. Raises one of the errors of `tunnel.open`,
        and then everything is as it was.
        """
        return (await self._daemon.reload(config)).changes

    async def save(self) -> bool:
        """Write the running state into the conf, comments kept; whether it had to change."""
        return bool((await self._daemon.save()).lines)

    async def wait_closed(self) -> None:
        """Return when it has gone down."""
        await self._closed.wait()


@contextlib.asynccontextmanager
async def open_tunnel(config: TunnelConfig | str | os.PathLike[str]) -> AsyncIterator[Tunnel]:
    """Set up the tunnel of `config` (a name or a path as on the command line, or a value); known
    as `tunnel.open`.

    Everything is undone on leaving, whatever the reason. Needs root, and leaves signals alone.
    Raises what `tunnel up` prints, as tunnel.errors.TunnelError.
    """
    if not isinstance(config, TunnelConfig):
        path = confs.find(config)
        config = await trio.to_thread.run_sync(confs.load, path)
    daemon = Daemon(config)
    tunnel = Tunnel(daemon)

    async def live(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await run(daemon, ready=task_status.started)
        finally:
            tunnel._closed.set()

    body_error: BaseException | None = None
    with unwrapped(), unwrapped(KeyboardInterrupt):
        async with trio.open_nursery() as nursery:
            await nursery.start(live)
            try:
                yield tunnel
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                body_error = error  # raised below, so that no nursery wraps it into a group
            finally:
                daemon.is_asked = True
                daemon.stop()
    if body_error is not None:
        raise body_error
