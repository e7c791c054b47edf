"""What the daemon answers on its control socket; docs/control.md describes it for clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any

import trio

from tunnel.capture.inner_filter import InnerFilter
from tunnel.capture.keylog import KeyLog
from tunnel.control import json_socket, run_folder, unix_socket
from tunnel.control.broadcast import EventQueue, Events, Subscription
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.changes import Attached, ReloadResult, SavedLine, SaveResult
from tunnel.control.messages.status import TunnelStatus
from tunnel.daemon.attach import Attachment
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.lock import unwritable
from tunnel.engine import Engine
from tunnel.log import redact
from tunnel.packet.filter import Filter, FilterError
from tunnel.trace.recorder import Recorder

Subscribed = contextlib.AbstractContextManager[Subscription]

MAX_LINES = 100
"""Changed lines of a conf that are shown; the rest is counted."""

MAX_TEXT = 1000
"""Characters of such a line that are shown; lists of allowed IPs have no end."""

MAX_FILTER = 1000
"""Characters; a filter is parsed in one go, and packets wait."""

MAX_LIMIT = 1e9
"""A limit that a client sets beyond this is none."""

FAREWELL = 0.5
"""Seconds that subscribers get to make room for the last events."""


@contextlib.asynccontextmanager
async def control_socket(daemon: Daemon, attachment: Attachment) -> AsyncIterator[None]:
    """Serve the daemon's control socket for the time of the `async with`.

    However that ends, also by cancellation or an error, subscribers get all events that the kernel
    has room for. Raises DaemonError when the socket cannot be made.
    """
    path = run_folder.socket_path(daemon.name)
    try:
        listener = unix_socket.bind_unix_socket(path)
    except OSError as error:
        raise unwritable(path, error) from error
    known = methods(daemon, attachment)
    serving = trio.CancelScope(shield=True)

    async def serve() -> None:
        with serving:
            await json_socket.serve(listener, known, streams(daemon))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                yield
            finally:
                with trio.move_on_after(FAREWELL, shield=True):
                    await daemon.feed.wait_idle()
                serving.cancel()
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def methods(daemon: Daemon, attachment: Attachment) -> dict[str, json_socket.Method]:
    """The requests that have one answer."""

    async def ping(params: dict[str, Any]) -> bool:
        return True

    async def status(params: dict[str, Any]) -> TunnelStatus:
        secrets, paths = _flag(params, "secrets"), _flag(params, "paths")
        return await daemon.status(secrets=secrets, paths=paths)

    async def down(params: dict[str, Any]) -> bool:
        daemon.stop_by_request(stays_shut=_flag(params, "stays_shut"))
        return True

    async def hand_over(params: dict[str, Any]) -> bool:
        return daemon.hand_over()

    async def reload(params: dict[str, Any]) -> ReloadResult:
        return await daemon.reload()

    async def diff(params: dict[str, Any]) -> ReloadResult:
        return await daemon.plan_reload()

    async def save(params: dict[str, Any]) -> SaveResult:
        saved = await daemon.save()
        shown = saved.lines[:MAX_LINES]
        return SaveResult(
            changed=bool(saved.lines),
            path=str(daemon.config.path),
            lines=tuple(SavedLine(line.sign, line.number, _shown(line.text)) for line in shown),
            more_lines=len(saved.lines) - len(shown),
            notes=saved.notes[:MAX_LINES],
        )

    async def attach(params: dict[str, Any]) -> Attached:
        kind, target, docker_host = (
            _text(params, name) for name in ("kind", "target", "docker_host")
        )
        return await attachment.attach(kind, target, docker_host)

    async def detach(params: dict[str, Any]) -> Attached:
        return await attachment.detach()

    known = (ping, status, down, hand_over, reload, diff, save, attach, detach)
    return {method.__name__: method for method in known}


class _Observers:
    """What can watch the packets of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.keys = KeyLog(engine)
        self.traces = Recorder(engine)
        self.captures = InnerFilter(engine)


def streams(daemon: Daemon) -> dict[str, json_socket.Stream]:
    """The requests that are answered by a stream."""
    return streams_of(lambda: daemon.feed, lambda: daemon.running().engine)


def streams_of(
    feed: Callable[[], Events], running: Callable[[], Engine]
) -> dict[str, json_socket.Stream]:
    """The same for any engine, which `running` gives while it runs, and its events."""
    observers = lru_cache(maxsize=1)(_Observers)

    def events(params: dict[str, Any]) -> Subscribed:
        queue = EventQueue()
        if _flag(params, "again") and (beginning := feed().beginning):
            queue.put(beginning)
        return feed().subscribe(queue)

    def keys(params: dict[str, Any]) -> Subscribed:
        return observers(running()).keys.subscribe()

    def trace(params: dict[str, Any]) -> Subscribed:
        if running().tun.tap:
            raise ControlError(
                "ethernet",
                "a trace follows packets through the IP stack, and with Mode = tap the tunnel "
                "carries Ethernet frames: use tunnel capture",
            )
        traces = observers(running()).traces
        seconds, rate = _limit(params, "seconds"), _limit(params, "rate")
        return traces.subscribe(_filter(params), seconds=seconds, rate=rate)

    def carriers(params: dict[str, Any]) -> Subscribed:
        return observers(running()).captures.subscribe(_filter(params))

    return {stream.__name__: stream for stream in (events, keys, trace, carriers)}


def _flag(params: dict[str, Any], name: str) -> bool:
    """A parameter that is false unless it is given. Raises ControlError."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise ControlError("syntax", f"{name} is true or false")
    return value


def _text(params: dict[str, Any], name: str) -> str:
    """A parameter that is empty unless it is given. Raises ControlError."""
    value = params.get(name, "")
    if not isinstance(value, str):
        raise ControlError("syntax", f"{name} is a string")
    return value


def _limit(params: dict[str, Any], name: str) -> float:
    """A limit that a client may give. Raises ControlError."""
    value = params.get(name, float("inf"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ControlError("syntax", f"{name} is a number above 0")
    # Python's integers have no bound, its floats have.
    return float("inf") if value > MAX_LIMIT else float(value)


def _filter(params: dict[str, Any]) -> Filter:
    """The packets that a client wants. Raises ControlError, FilterError."""
    text = _text(params, "filter")
    if len(text) > MAX_FILTER:
        raise FilterError(f"a filter has at most {MAX_FILTER} characters")
    return Filter.parse(text)


def _shown(line: str) -> str:
    """The beginning of a line of the conf, keys hidden."""
    # A little more than is shown, so that no key is cut in two, and then not known for one.
    text = redact.redact(line[: MAX_TEXT + 100])
    return text if len(line) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
