"""What our servers share: they accept, read lines, and a request that fails does so alone.

A request may fail in ways that no handler foresees: a defect, or a machine that is out of memory or
descriptors. The client then gets an error and the log a line; the daemon and all other connections
go on.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator

import trio

from tunnel.control.clients import Client, Places
from tunnel.errors import TunnelError

log = logging.getLogger("tunnel")

LOG_PERIOD = 60.0
"""Seconds for which further failures of the same request and kind are counted, not logged."""

_ACCEPT_PAUSES = 0.05, 1.0
"""Seconds, at first and at most, until the next attempt to accept: what the machine is short of may
be free again by then."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
"""The client closed the connection; nothing to report."""

_READ = 65_536


class InternalError(TunnelError):
    """A request failed for a reason that is not the client's. `errno` says the same as a number."""

    code = "internal"

    def __init__(self, request: str, error: BaseException) -> None:
        super().__init__(f"{request} failed: {_in_words(error)}; see the daemon's log")
        number = error.errno if isinstance(error, OSError) else None
        self.errno = errno.ENOMEM if isinstance(error, MemoryError) else number or errno.EIO


class Failures:
    """Keeps failures of single requests from ending the `server`, and logs them."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    @contextlib.contextmanager
    def contained(self, request: str) -> Iterator[None]:
        """Log an unexpected exception of `request`, and raise an InternalError in its place.

        What passes: TunnelError, which is an answer; the end of the connection; cancellation, and
        whatever else is no Exception; a failure of trio itself. A group of exceptions that all mean
        the same passes as the first of them.
        """
        try:
            yield
        except BaseException as error:
            passing, failures = _sort(error)
            try:
                if failures:
                    self.log(request, failures[0])
                if passing is error:
                    raise
                raise passing or InternalError(request, failures[0]) from None
            finally:
                # Their tracebacks have this frame, which has them.
                del passing, failures

    def log(self, request: str, error: BaseException) -> None:
        """Log a failure, once for each kind of it in `LOG_PERIOD`; the traceback if debugging."""
        kind = request, type(error).__name__
        now = trio.current_time()
        since, more = self._logged.get(kind, (float("-inf"), 0))
        if now - since < LOG_PERIOD:
            self._logged[kind] = since, more + 1
            return
        self._logged[kind] = now, 0
        before = f" ({more} more since the last such line)" if more else ""
        log.error("%s: %s failed: %s%s", self._server, request, _in_words(error), before)
        log.debug("%s: %s", self._server, request, exc_info=error)


def _sort(error: BaseException) -> tuple[BaseException | None, list[BaseException]]:
    """What `Failures.contained` has to let pass, and what has failed; never both empty."""
    if not isinstance(error, BaseExceptionGroup):
        return (error, []) if _passes(error) else (None, [error])
    fatal, rest = error.split(lambda one: _is_leaf(one) and _is_fatal(one))
    leaves = [] if rest is None else list(_leaves(rest))
    failures = [leaf for leaf in leaves if not _passes(leaf)]
    if fatal is not None:
        return fatal, failures
    return (None, failures) if failures else (leaves[0], [])


def _is_leaf(error: BaseException) -> bool:
    return not isinstance(error, BaseExceptionGroup)


def _is_fatal(error: BaseException) -> bool:
    return not isinstance(error, Exception) or isinstance(error, trio.TrioInternalError)


def _passes(error: BaseException) -> bool:
    return _is_fatal(error) or isinstance(error, (TunnelError, *GONE))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _in_words(error: BaseException) -> str:
    """Its type, its text, and where it was raised."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        place = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
    return type(error).__name__ + (f": {text}" if text else "") + place


async def serve_connections(
    listener: socket.socket, handler: Callable[[Client], Awaitable[None]], failures: Failures
) -> None:
    """Give each connection to `handler`, at most `MAX_CONNECTIONS` at a time, until cancelled.

    A client that goes away at any time, or a handler that fails, ends that connection alone. The
    one that has been silent longest is ended when its place is needed.
    """
    places = Places()

    async def handle(client: Client) -> None:
        try:
            with failures.contained("a connection"):
                async with client:
                    with client.scope:
                        await handler(client)
        except (InternalError, *GONE):
            pass  # logged, or nothing to report
        except TunnelError as error:
            failures.log("a connection", error)
        finally:
            places.leave(client)

    acceptor = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with acceptor, trio.open_nursery() as nursery:
        while True:
            stream = await _accept(acceptor, failures)
            try:
                client = await places.take(stream)
            except trio.Cancelled:
                stream.socket.close()
                raise
            nursery.start_soon(handle, client)


async def _accept(acceptor: trio.SocketListener, failures: Failures) -> trio.SocketStream:
    pause, longest = _ACCEPT_PAUSES
    while True:
        try:
            return await acceptor.accept()
        except OSError as error:
            failures.log("accept", error)
        await trio.sleep(pause)
        pause = min(2 * pause, longest)


class LineTooLongError(TunnelError):
    """No end of a line where there has to be one."""

    code = "syntax"


class Lines:
    """The lines of a connection, one at a time, none longer than `limit` bytes."""

    def __init__(self, stream: trio.abc.ReceiveStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._rest = b""
        self._lines: list[bytes] = []

    async def read_untrusted(self) -> bytes | None:
        """The next line without its newline; None at the end of the connection.

        Raises LineTooLongError, and trio's errors of a broken stream.
        """
        while not self._lines:
            if len(self._rest) > self._limit:
                raise LineTooLongError(f"a line is longer than {self._limit} bytes")
            data = await self._stream.receive_some(_READ)
            if not data:
                return None
            *complete, self._rest = (self._rest + data).split(b"\n")
            self._lines = complete[::-1]
        return self._lines.pop()
