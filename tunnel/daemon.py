"""The service: conf in, host state applied, engine running, control socket served, all undone.

`Daemon.run` is the whole life of one tunnel. What it sets up it takes down in the reverse order,
whatever ends it; what a killed one left behind, `clean_up` finds and removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import trio

from tunnel import datapath, host
from tunnel.config import ConfigErrors, TunnelConfig
from tunnel.control import json_socket
from tunnel.engine import Engine, boot_time
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted, TunnelIOError
from tunnel.io.tun import TSO, USO, Tun, TunOffload
from tunnel.io.udp import Udp
from tunnel.observe.status import PeerStatus, TunnelStatus
from tunnel.protocol import (
    ClockImplausible,
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    Peer,
    PeerError,
    PeerRemoved,
    PeerRoamed,
)
from tunnel.resolve import ResolveError, resolve

log = logging.getLogger("tunnel")

T = TypeVar("T")


class DaemonError(Exception):
    """The tunnel could not be set up or taken down; the text says why and what to do."""


class AlreadyRunningError(DaemonError):
    """A daemon for this interface runs already."""


class Daemon:
    """One tunnel from its conf. `run` may be called once.

    `state` is the host state applied last; None before and after.
    """

    def __init__(self, config: TunnelConfig) -> None:
        self.config = config
        self.engine: Engine | None = None
        self.applied: host.Applied | None = None
        self._stop = trio.Event()

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.config.name

    def stop(self) -> None:
        """Ask `run` to take everything down and return."""
        self._stop.set()

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Set up, call `ready`, carry packets until `stop` or a signal, undo everything.

        Raises DaemonError, HostError, TunnelIOError or ResolveError when it cannot be set up;
        then nothing is left of it. Returns when the interface is deleted from outside.
        """
        with _lock(self.name):
            self._check_hooks()
            await self._refuse_existing()
            endpoints = await self._resolve_endpoints()
            slot = await self._find_slot()
            mark = self.config.interface.fwmark or (slot.mark if slot else 0)
            options = self.config.interface.options
            with (
                Udp.open(
                    self.config.interface.listen_port,
                    mark,
                    gso=options.use_gso,
                    gro=options.use_gro,
                ) as udp,
                Tun.open(self.name, offloads=_offloads(self.config)) as tun,
            ):
                mtu = await self._mtu(endpoints, mark)
                engine = self.engine = Engine(
                    tun=tun, udp=udp, mtu=mtu, path=_datapath(self.config), on_event=log_event
                )
                configure(engine, self.config, endpoints)
                await self._run_hooks("PreUp", self.config.interface.pre_up)
                async with self._host_state(mtu, slot):
                    with unwrapped(host.HostError):
                        await self._serve(engine, ready)
            await self._run_hooks("PostDown", self.config.interface.post_down)

    async def _serve(self, engine: Engine, ready: Callable[[], None]) -> None:
        path = json_socket.socket_path(self.name)
        listener = json_socket.bind_unix_socket(path)
        methods: dict[str, json_socket.Method] = {
            "status": self._answer_status,
            "down": self._answer_down,
        }
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(_stop_on_signals, self._stop)
                await nursery.start(engine.run)
                nursery.start_soon(json_socket.serve, listener, methods)
                engine.settle()
                await self._run_hooks("PostUp", self.config.interface.post_up)
                log.info("%s is up, UDP port %d", self.name, engine.udp.port)
                ready()
                await self._stop.wait()
                log.info("%s is going down", self.name)
                await self._run_hooks("PreDown", self.config.interface.pre_down)
                nursery.cancel_scope.cancel()
        except* TunDeleted:
            log.warning("%s was deleted from outside: leaving", self.name)
        finally:
            listener.close()
            path.unlink(missing_ok=True)

    # --- Setting up ------------------------------------------------------------------------------

    def _check_hooks(self) -> None:
        interface = self.config.interface
        hooks = (interface.pre_up, interface.post_up, interface.pre_down, interface.post_down)
        if any(hooks) and self.config.path is not None:
            host.check_hook_source(self.config.path)

    async def _run_hooks(self, kind: str, commands: tuple[str, ...]) -> None:
        if commands:
            await trio.to_thread.run_sync(host.run_hooks, kind, commands, self.name, log.info)

    async def _refuse_existing(self) -> None:
        if await trio.to_thread.run_sync(host.link_exists, self.name):
            raise DaemonError(
                f"an interface named {self.name} exists already; "
                f"take it down first (tunnel down {self.name}, or ip link delete {self.name})"
            )

    async def _resolve_endpoints(self) -> dict[int, Endpoint]:
        """The address of each peer (by its place in the conf) that has an endpoint."""
        found: dict[int, Endpoint] = {}

        async def look_up(place: int) -> None:
            wanted = self.config.peers[place].endpoint
            if wanted is not None:
                found[place] = (await resolve(wanted))[0]

        with unwrapped(ResolveError):
            async with trio.open_nursery() as nursery:
                for place in range(len(self.config.peers)):
                    nursery.start_soon(look_up, place)
        return found

    async def _find_slot(self) -> host.DefaultRouteSlot | None:
        networks = [network for peer in self.config.peers for network in peer.networks]
        if not host.has_default_route(networks, self.config.interface.table):
            return None
        return await trio.to_thread.run_sync(host.find_default_route_slot)

    async def _mtu(self, endpoints: dict[int, Endpoint], mark: int) -> int:
        if self.config.interface.mtu is not None:
            return self.config.interface.mtu
        addresses = [ip_address(endpoint.address) for endpoint in endpoints.values()]
        return await trio.to_thread.run_sync(
            lambda: host.compute_mtu(addresses, interface=self.name, mark=mark)
        )

    @contextlib.asynccontextmanager
    async def _host_state(
        self, mtu: int, slot: host.DefaultRouteSlot | None
    ) -> AsyncIterator[None]:
        interface = self.config.interface
        state = host.desired_state(
            self.name,
            interface.addresses,
            [network for peer in self.config.peers for network in peer.networks],
            mtu=mtu,
            table=interface.table,
            fwmark=interface.fwmark,
            slot=slot,
            dns=interface.dns,
            dns_search=interface.dns_search,
        )
        # Not abandoned on cancellation: half a state must not be left behind.
        with trio.CancelScope(shield=True):
            self.applied = applied = await trio.to_thread.run_sync(host.apply, state)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(applied.undo)
            self.applied = None

    # --- Answers on the control socket -----------------------------------------------------------

    async def _answer_status(self, params: dict[str, Any]) -> dict[str, Any]:
        return self.status(secrets=params.get("secrets") is True).to_json()

    async def _answer_down(self, params: dict[str, Any]) -> bool:
        self.stop()
        return True

    def status(self, *, secrets: bool = False) -> TunnelStatus:
        """What the tunnel looks like now. With `secrets`, private and preshared keys too."""
        engine = self.engine
        if engine is None:
            raise DaemonError("the tunnel is not set up yet")
        protocol = engine.interface
        private, public = protocol.private_key, protocol.public_key
        return TunnelStatus(
            name=self.name,
            public_key=public.to_base64() if public else None,
            private_key=private.to_base64() if private and secrets else None,
            listen_port=engine.udp.port,
            fwmark=engine.udp.fwmark,
            mtu=engine.mtu,
            addresses=tuple(map(str, self.config.interface.addresses)),
            datapath=engine.datapath.name,
            offloads=_offload_words(engine),
            pid=os.getpid(),
            peers=tuple(
                _peer_status(engine, peer, secrets=secrets) for peer in protocol.peers.values()
            ),
            drops=engine.drops(),
        )


def configure(engine: Engine, config: TunnelConfig, endpoints: dict[int, Endpoint]) -> None:
    """Give the engine its key and its peers. `endpoints` by the peer's place in the conf."""
    now = boot_time()
    protocol = engine.interface
    protocol.set_private_key(config.interface.private_key, now)
    for place, wanted in enumerate(config.peers):
        try:
            peer = protocol.add_peer(wanted.public_key)
        except PeerError as error:
            # wg ignores our own key as a peer's; so do we, but not silently.
            log.warning("peer ignored: %s", error)
            continue
        if wanted.preshared_key is not None:
            peer.set_preshared_key(wanted.preshared_key)
        for network in wanted.networks:
            protocol.allowed_ips.insert(network, peer)
        peer.set_endpoint(endpoints.get(place))
        peer.set_persistent_keepalive(wanted.persistent_keepalive, now)


def clean_up(name: str, *, patience: float = 0.0) -> bool:
    """Remove what a killed daemon of interface `name` left behind; whether there was anything.

    One that is going down is waited for, `patience` seconds. Raises AlreadyRunningError when it
    stays, DaemonError and HostError. Blocks.
    """
    with _lock(name, patience=patience):
        found = host.remove(name)
        path = json_socket.socket_path(name)
        if path.exists():
            path.unlink(missing_ok=True)
            found = True
        return found


def log_event(event: Event) -> None:
    """One line per event of the protocol, at the level an admin would give it."""
    match event:
        case HandshakeCompleted(peer=peer, is_initiator=initiator, round_trip=round_trip):
            side = "our" if initiator else "its"
            log.info(
                "handshake with %s completed on %s initiative, round trip %.1f ms",
                peer.public_key.to_base64(),
                side,
                round_trip * 1000,
            )
        case HandshakeUnanswered(peer=peer, attempt=attempt):
            log.info("no answer from %s (attempt %d)", _whereabouts(peer), attempt)
        case HandshakeFailed(peer=peer, attempts=attempts, dropped=dropped, reason=reason):
            log.warning(
                "no session with %s after %d attempts: %s; %d waiting packets dropped",
                _whereabouts(peer),
                attempts,
                reason,
                dropped,
            )
        case PeerRoamed(peer=peer, old=old, new=new):
            if str(old) != str(new):
                log.info("%s moved from %s to %s", peer.public_key.to_base64(), old, new)
        case PeerRemoved(peer=peer):
            log.warning("%s removed: its key is now our own", peer.public_key.to_base64())
        case ClockImplausible(problem=problem):
            log.error("the clock cannot be right: %s", problem)
        case _:
            log.debug("%s", event)


def _whereabouts(peer: Peer[Any, Any]) -> str:
    return f"{peer.public_key.to_base64()} at {peer.endpoint or 'no known address'}"


def _peer_status(engine: Engine, peer: Peer[Any, Any], *, secrets: bool) -> PeerStatus:
    psk = peer.preshared_key
    return PeerStatus(
        public_key=peer.public_key.to_base64(),
        has_preshared_key=not psk.is_zero,
        preshared_key=psk.to_base64() if secrets and not psk.is_zero else None,
        endpoint=None if peer.endpoint is None else str(peer.endpoint),
        allowed_ips=tuple(map(str, engine.interface.allowed_ips.of(peer))),
        latest_handshake=peer.last_handshake_unix_ns / 1e9,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        persistent_keepalive=peer.persistent_keepalive,
    )


def _offloads(config: TunnelConfig) -> TunOffload:
    options = config.interface.options
    offloads = TunOffload.CSUM
    if options.use_tso:
        offloads |= TSO
    if options.use_uso:
        offloads |= USO
    return offloads


def _offload_words(engine: Engine) -> dict[str, str]:
    granted = [str(flag.name).lower() for flag in TunOffload if flag & engine.tun.offloads]
    batches = [name for name, used in (("gso", engine.udp.gso), ("gro", engine.udp.gro)) if used]
    return {"tun": " ".join(granted) or "off", "udp": " ".join(batches) or "off"}


def _datapath(config: TunnelConfig) -> datapath.Datapath:
    wanted = config.interface.options.datapath
    chosen = datapath.load(None if wanted == "auto" else wanted)
    if chosen.note:
        log.info("%s; using the %s datapath", chosen.note, chosen.name)
    return chosen


async def _stop_on_signals(
    stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()


@contextlib.contextmanager
def _lock(name: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the interface's lock, so that two daemons never share a name; freed by the kernel.

    Waits `patience` seconds for another holder. Raises AlreadyRunningError, DaemonError.
    """
    path = json_socket.RUN_FOLDER / f"{name}.lock"
    deadline = time.monotonic() + patience
    while True:
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our open and our lock.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise AlreadyRunningError(
                    f"a tunnel named {name} is running already; see tunnel show {name}"
                ) from None
            time.sleep(0.02)
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonError(
            f"cannot write {path}: {error.strerror}; run it as root (sudo)"
        ) from error


@contextlib.contextmanager
def unwrapped(*kinds: type[Exception]) -> Iterator[None]:
    """Let the first exception of `kinds` out of the group that a nursery wraps it in."""
    try:
        yield
    except* kinds as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


SETUP_ERRORS = (ConfigErrors, DaemonError, host.HostError, ResolveError, TunnelIOError)
"""What `Daemon.run` and its preparation may raise for reasons a user can mend."""
