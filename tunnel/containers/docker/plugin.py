"""`tunnel docker-plugin`: what it is composed of, from its start to its end.

Its end leaves the networks as they are: containers go on reaching each other. A start sets up again
what is missing, and removes what Docker no longer has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import trio

from tunnel.containers.docker import http, tunnels
from tunnel.containers.docker.docker_api import DockerApi
from tunnel.containers.docker.driver import Driver
from tunnel.containers.docker.names import NetworkNames
from tunnel.containers.docker.server import Requests
from tunnel.containers.docker.store import PluginState, Store
from tunnel.containers.docker.wiring import HostWiring
from tunnel.containers.errors import ContainerError
from tunnel.control.connections import Failures
from tunnel.control.socket_file import SocketFile
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.daemon.sd_notify import Notifier
from tunnel.device import signals
from tunnel.errors import TunnelError, unwrapped

log = logging.getLogger("tunnel")

SOCKET = Path("/run/docker/plugins/tunnel.sock")
"""Where Docker looks for a network driver named tunnel."""
DOCKER = "/run/docker.sock"
STATE = Path("/var/lib/tunnel/docker")

_FIRST_PASSED = 3  # sd_listen_fds(3)
_PAUSES = 1.0, 60.0
"""Seconds until Docker is asked again, at first and at most, where it does not answer."""


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Where the plugin listens, where it asks Docker, and where its state is."""

    listen: Path = SOCKET
    docker: str = DOCKER
    state: Path = STATE


def run(options: PluginOptions) -> None:
    """Serve until a signal ends it. Raises TunnelError."""
    if os.geteuid() != 0:
        raise ContainerError("bridges and the firewall need root: run it with sudo")
    notifier = Notifier.from_environment()
    with listening(options.listen) as listener, unwrapped():
        trio.run(_Plugin(options).run, listener, notifier)


class _Plugin:
    def __init__(self, options: PluginOptions) -> None:
        self._wiring = HostWiring()
        self._driver = Driver(Store(options.state), self._wiring, tunnels.look_up)
        self._docker = DockerApi(options.docker)
        self._failures = Failures("docker-plugin")
        self._requests = Requests(self._driver, self._failures, self._follow_names)
        self._names: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, listener: socket.socket, notifier: Notifier) -> None:
        found = self._driver.state
        async with trio.open_nursery() as nursery:
            self._nursery = nursery

            def stop() -> None:
                log.info("the plugin ends; its networks stay")
                nursery.cancel_scope.cancel()

            await nursery.start(signals.follow, stop, self._restore)
            await self._restore()
            nursery.start_soon(http.serve, listener, self._requests.answer, self._failures)
            nursery.start_soon(self._forget, found)
            count = len(self._driver.state.networks)
            log.info("docker-plugin: ready, %d network%s", count, "" if count == 1 else "s")
            notifier.ready(f"{count} networks")
        notifier.stopping()

    async def _restore(self) -> None:
        async with self._requests.lock:
            await trio.to_thread.run_sync(self._driver.restore)
        self._follow_names()

    async def _forget(self, found: PluginState) -> None:
        """Remove what was there at the start, and Docker no longer has, once it says so."""
        pause, longest = _PAUSES
        while found.networks:
            try:
                known = {}
                for network in found.networks:
                    view = await self._docker.network(network)
                    if view is not None:
                        known[network] = view.endpoints
            except TunnelError as error:
                log.debug("networks that Docker may not have any more are kept: %s", error)
                await trio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            try:
                async with self._requests.lock:
                    await trio.to_thread.run_sync(self._driver.forget_others, known, found)
            except TunnelError as error:
                log.error("what Docker no longer has cannot be removed: %s", error)
            self._follow_names()
            return

    def _follow_names(self) -> None:
        """Have names answered for the networks that there are."""
        if self._nursery is None:
            return
        for network in self._names.keys() - self._wiring.names.keys():
            self._names.pop(network).cancel()
        for network in self._wiring.names.keys() - self._names.keys():
            scope = self._names[network] = trio.CancelScope()
            self._nursery.start_soon(self._answer_names, network, scope)
        while self._wiring.retired:
            sockets = self._wiring.retired.pop()
            for sock in (sockets.queries, sockets.peers):
                trio.lowlevel.notify_closing(sock)
            sockets.close()

    async def _answer_names(self, network: str, scope: trio.CancelScope) -> None:
        names = NetworkNames(
            network,
            self._wiring.names[network],
            lambda: self._driver.state.networks.get(network),
            self._docker,
            tunnels.look_up,
            self._failures,
        )
        with scope:
            await names.run()


@contextlib.contextmanager
def listening(
    path: Path, environment: MutableMapping[str, str] = os.environ
) -> Iterator[socket.socket]:
    """The socket that systemd passes on, or one at `path`, which goes at the end."""
    passed = environment.pop("LISTEN_FDS", "")
    meant = environment.pop("LISTEN_PID", "") == str(os.getpid())
    environment.pop("LISTEN_FDNAMES", None)
    if meant and passed == "1":
        with socket.socket(fileno=_FIRST_PASSED) as listener:
            listener.setblocking(False)
            yield listener
        return
    try:
        listener = bind_unix_socket(path)
    except OSError as error:
        raise ContainerError(
            f"cannot listen on {path}: {error.strerror}; see whether the plugin is "
            "running already: systemctl status tunnel-docker-plugin"
        ) from error
    file = SocketFile(path)
    try:
        with listener:
            yield listener
    finally:
        file.remove()
