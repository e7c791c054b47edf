"""A tunnel in a thread of its own, with a trio loop of its own: what the other entries stand on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, ParamSpec, TypeVar

import trio

from tunnel.api.running import Tunnel, open_tunnel
from tunnel.config import TunnelConfig
from tunnel.errors import DaemonError

P = ParamSpec("P")
T = TypeVar("T")


class Call(Generic[T]):
    """A call in the tunnel's thread. `future` is done when it has ended there, if cancelled too."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.future: Future[T] = Future()
        self.scope = trio.CancelScope()
        self._function = function

    async def run(self) -> None:
        """Make it, in the tunnel's thread."""
        try:
            with self.scope:
                self.future.set_result(await self._function())
        except Exception as error:
            self.future.set_exception(error)
        finally:
            if not self.future.done():
                self.future.set_exception(DaemonError("the call has ended with the tunnel"))


class TunnelThread:
    """Sets a tunnel up in a thread, and undoes it when `stop` is called.

    `ready` has the tunnel, or the error of setting it up; `done` is set when the thread has ended,
    with the error that it ended with.
    """

    def __init__(self, config: TunnelConfig | str | os.PathLike[str]) -> None:
        self.ready: Future[Tunnel] = Future()
        self.done: Future[None] = Future()
        self._config = config
        self._loop: Future[trio.lowlevel.TrioToken] = Future()
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._thread = threading.Thread(target=self._main, name="tunnel")
        self._thread.start()

    def stop(self) -> None:
        """Begin to take the tunnel down, also while it is set up; from any thread."""
        self._soon(self._stop.set)
        if not self.ready.done():
            self._soon(self._scope.cancel)

    def join(self) -> None:
        """Wait for the thread, which has ended but for this."""
        self._thread.join()

    def start(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[T]:
        """Begin a call in the tunnel's thread."""
        call = Call(lambda: function(*args, **kwargs))

        def begin() -> None:
            if self._nursery is None:
                call.future.set_exception(self._gone())
            else:
                self._nursery.start_soon(call.run)

        if not self._soon(begin):
            call.future.set_exception(self._gone())
        return call

    def cancel(self, call: Call[T]) -> None:
        """Cancel a call; its future is done soon."""
        self._soon(call.scope.cancel)

    def _soon(self, function: Callable[[], object]) -> bool:
        """Let the loop call a function; False if it has ended."""
        try:
            self._loop.result().run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    @staticmethod
    def _gone() -> DaemonError:
        return DaemonError("the tunnel has gone down")

    def _main(self) -> None:
        # What is run from here would inherit that it is blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            trio.run(self._live)
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error)
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
        else:
            if not self.ready.done():
                self.ready.set_exception(DaemonError("setting the tunnel up was cancelled"))
            self.done.set_result(None)

    async def _live(self) -> None:
        self._loop.set_result(trio.lowlevel.current_trio_token())
        with self._scope:
            async with open_tunnel(self._config) as tunnel, trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    self.ready.set_result(tunnel)
                    await self._stop.wait()
                finally:
                    self._nursery = None
                    nursery.cancel_scope.cancel()
