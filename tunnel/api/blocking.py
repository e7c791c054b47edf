"""`tunnel.open_sync`: a tunnel for the time of a `with`, in a program without an event loop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
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


class SyncEvents:
    """The events of a tunnel, as an iterator that waits for the next; it ends with the tunnel."""

    def __init__(self, tunnel: SyncTunnel, stream: EventReader) -> None:
        self._tunnel = tunnel
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnyEvent:
        try:
            return self.get()
        except StopAsyncIteration:
            raise StopIteration from None

    def get(self, timeout: float | None = None) -> AnyEvent:
        """The next event. Raises TimeoutError after `timeout` seconds, StopAsyncIteration at the
        end.
        """
        return self._tunnel._call(timeout, self._stream.__anext__)


class SyncTunnel:
    """A tunnel that is up; made by `tunnel.open_sync`. As `tunnel.Tunnel`, but its methods block.

    They may be called from any thread. ^C ends one at once, and leaves nothing half-done.
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

    def status(self, *, secrets: bool = False) -> TunnelStatus:
        """What it looks like now. With `secrets`, private and preshared keys too."""
        return self._call(None, self._tunnel.status, secrets=secrets)

    @contextlib.contextmanager
    def events(self) -> Iterator[SyncEvents]:
        """Events from now on, for the time of a `with`, as objects of `tunnel.events`."""
        subscription = self._tunnel.events()

        async def enter() -> EventReader:
            return subscription.__enter__()

        async def leave() -> None:
            subscription.__exit__(None, None, None)

        stream = self._call(None, enter)
        try:
            yield SyncEvents(self, stream)
        finally:
            # With the tunnel, its subscriptions have ended.
            with contextlib.suppress(DaemonError):
                self._call(None, leave)

    def diff(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """What `reload` would change."""
        return self._call(None, self._tunnel.diff, config)

    def reload(self, config: TunnelConfig | None = None) -> tuple[Change, ...]:
        """Make it equal to `config`, by default to its file as it is now; what was changed."""
        return self._call(None, self._tunnel.reload, config)

    def save(self) -> bool:
        """Write the running state into the conf, comments kept; whether it had to change."""
        return self._call(None, self._tunnel.save)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Return when it has gone down. Raises TimeoutError after `timeout` seconds."""
        self._call(timeout, self._tunnel.wait_closed)

    def _call(
        self,
        timeout: float | None,
        function: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        call = self._thread.start(function, *args, **kwargs)
        try:
            return call.future.result(timeout)
        except BaseException:
            if not call.future.done():
                # ^C, or the time is over: it must have ended before the caller goes on.
                self._thread.cancel(call)
                _wait(call.future)
            raise


@contextlib.contextmanager
def open_sync(config: TunnelConfig | str | os.PathLike[str]) -> Iterator[SyncTunnel]:
    """Set up the tunnel of `config`, as `tunnel.open` does, without an event loop; known as
    `tunnel.open_sync`.

    It runs in a thread of its own, which is gone on leaving.
    """
    # ^C comes where the thread is known, and is ended.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        thread = TunnelThread(config)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield SyncTunnel(thread, thread.ready.result())
    finally:
        thread.stop()
        _wait(thread.done)
        thread.join()
    thread.done.result()


def _wait(future: Future[T]) -> None:
    """Wait until it is done. A ^C meanwhile counts afterwards: what ends must not be left alone."""
    interrupt: KeyboardInterrupt | None = None
    while not future.done():
        try:
            future.exception()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
