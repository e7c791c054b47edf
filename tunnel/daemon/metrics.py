"""The metrics of a running daemon, served where its conf says."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import trio

from tunnel import datapath, engine, protocol
from tunnel.control import http
from tunnel.control.clients import BACKLOG
from tunnel.control.run_folder import metrics_path
from tunnel.control.socket_file import SocketFile
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.meter import Metrics
from tunnel.device.status import describe, take_snapshot
from tunnel.errors import DaemonError
from tunnel.io import drops as io_drops

log = logging.getLogger("tunnel")

__all__ = ["REASONS", "serve_metrics"]

REASONS = sorted(
    {
        str(reason)
        for reasons in (
            engine.EngineDrop,
            protocol.ProtocolDrop,
            datapath.DatapathDrop,
            io_drops.IoDrop,
        )
        for reason in reasons
    }
)
"""All that a packet can be dropped for."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LABEL_NETWORKS = 32
"""Allowed IPs in the label of a peer's metrics. Of more, there is the number: a label of megabytes
is of no use, and would have to be made for every scrape."""


async def gather(daemon: Daemon) -> Metrics:
    """The daemon's figures now. Raises DaemonError while it is not up."""
    running = daemon.running().engine
    taken = await take_snapshot(running, max_networks=LABEL_NETWORKS)
    staged = sum(peer.staged_frames for peer in taken.peers)
    return Metrics(
        await describe(taken, running, daemon.config),
        load=running.load,
        meter=daemon.meter,
        queues={
            "handshakes": running.handshakes_waiting,
            "staged": staged,
        },
        socket_bytes=running.udp.queued(),
        reasons=REASONS,
        tasks=trio.lowlevel.current_statistics().tasks_living,
    )


def _render(metrics: Metrics) -> bytes:
    from tunnel.daemon import prometheus

    return prometheus.render(metrics)


async def serve_metrics(
    daemon: Daemon, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve them until cancelled; started once they can be scraped.

    A tunnel works without: where they cannot be served, the log says so and that is all.
    """

    async def page() -> bytes:
        try:
            taken = await gather(daemon)
        except DaemonError:
            raise http.HttpError("503 Service Unavailable") from None
        # Thousands of peers make a long text: packets go on meanwhile.
        return await trio.to_thread.run_sync(_render, taken)

    with _listener(daemon) as listener:
        if listener is None:
            task_status.started()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.meter.watch_loop)
            pages = {"/metrics": (CONTENT_TYPE, page)}
            nursery.start_soon(http.serve, listener, pages)
            task_status.started()


@contextlib.contextmanager
def _listener(daemon: Daemon) -> Iterator[socket.socket | None]:
    place = daemon.config.interface.options.metrics
    if place == "off":
        yield None
        return
    path = metrics_path(daemon.name)
    shown = path if place == "unix" else place
    try:
        listener = bind_unix_socket(path) if place == "unix" else _bind(place.host, place.port)
    except OSError as error:
        log.warning("no metrics at %s: %s", shown, error.strerror)
        yield None
        return
    log.info("metrics are at %s", shown)
    file = SocketFile(path) if place == "unix" else None
    try:
        yield listener
    finally:
        listener.close()
        if file is not None:
            file.remove()


def _bind(host: str, port: int) -> socket.socket:
    """Listen on an address; it may be the tunnel's own. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # getaddrinfo with a number asks no server, and knows the scope of a link-local address.
    address = socket.getaddrinfo(host, port, family, flags=socket.AI_NUMERICHOST)[0][4]
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
