"""A WireGuard device in user space, as wireguard-go's `device`: what `wg` can see and set.

It joins the engine with what one needs who knows neither a conf file nor the machine around:
endpoints that are names, the events in words, the state of its link, and one lock for all that
change it. `tunnel-wg` is a device and its socket; the daemon of `tunnel up` puts a conf and the
host's addresses, routes and rules around one.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import trio

from tunnel.control.messages.status import RefusedHandshake
from tunnel.control.timeslice import Pace
from tunnel.control.uapi import DeviceState
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_grammar import UapiError
from tunnel.datapath import Datapath
from tunnel.device import configure
from tunnel.device.endpoints import Endpoints
from tunnel.device.event_log import EventLog, NameOf, Publish, publish_nothing
from tunnel.device.features import Offloads
from tunnel.device.link_monitor import Restore, follow_link
from tunnel.device.route_monitor import RouteMonitor
from tunnel.engine import Clock, Engine, SessionRecord, boot_time
from tunnel.io.errors import TunDeleted
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp
from tunnel.protocol import Event

Renew = Callable[[], Awaitable[bool]]

PATIENCE = 10.0
"""Seconds that a `wg set` waits for a reload, or for the hooks of a tunnel that goes down."""


class Device:
    """A device made of an open `tun` and `udp`, which it closes with itself.

    `changing` is held by all that change its configuration, `is_deleted` says whether the interface
    was deleted from outside. `publish` gets the events as records, with the friendly names that
    `name_of` gives for keys; `clock` is the engine's.
    """

    def __init__(
        self,
        name: str,
        tun: Tun,
        udp: Udp,
        *,
        mtu: int,
        path: Datapath | None = None,
        publish: Publish = publish_nothing,
        clock: Clock = boot_time,
        short_tails: bool = False,
        record: SessionRecord | None = None,
        name_of: NameOf = lambda key: "",
    ) -> None:
        self.name = name
        self.is_deleted = False
        self.endpoints = Endpoints(clock=clock, name_of=name_of)
        self.changing = trio.Lock()
        self._event_log = EventLog(publish, clock, name_of)
        self.engine = Engine(
            tun=tun,
            udp=udp,
            mtu=mtu,
            path=path,
            clock=clock,
            on_event=self._handle_event,
            retry_endpoint=self.endpoints.retry,
            short_tails=short_tails,
            record=record,
        )
        self._routes = RouteMonitor(self.engine)
        # Not `changing`: a get waits for no reload.
        self._applying = trio.Lock()

    @classmethod
    def open(
        cls,
        name: str,
        *,
        mtu: int,
        path: Datapath,
        offloads: Offloads,
        listen_port: int = 0,
        fwmark: int = 0,
        tun_fd: int | None = None,
        tun_control: socket.socket | None = None,
        udp_fds: Collection[int] = (),
        record: SessionRecord | None = None,
        publish: Publish = publish_nothing,
        mac: bytes | None = None,
        name_of: NameOf = lambda key: "",
    ) -> Self:
        """Make the interface `name`, or take over the attached TUN device of `tun_fd`, and bind
        the UDP sockets, or take over the bound ones of `udp_fds`, whose port and mark stay. Needs
        no event loop. `tun_control` is a socket in the device's namespace. With a `mac` the
        interface carries Ethernet frames, and has this address. Sessions are kept in `record`,
        which stays the caller's.

        Raises TunError and UdpError, and then nothing is left.
        """
        with ExitStack() as undo:
            batches = {"gso": offloads.gso, "gro": offloads.gro}
            udp = undo.enter_context(
                Udp.adopt(udp_fds, **batches)
                if udp_fds
                else Udp.open(listen_port, fwmark, **batches)
            )
            if tun_fd is None:
                tun = undo.enter_context(Tun.open(name, mtu=mtu, offloads=offloads.tun, mac=mac))
            else:
                tun = undo.enter_context(
                    Tun.adopt(tun_fd, offloads=offloads.tun, control=tun_control, mac=mac)
                )
            # The kernel has filled in a name such as wg%d.
            device = cls(
                tun.name,
                tun,
                udp,
                mtu=mtu,
                path=path,
                publish=publish,
                short_tails=offloads.short_tails,
                record=record,
                name_of=name_of,
            )
            undo.pop_all()
        return device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets and remove the interface; idempotent."""
        self.engine.udp.close()
        self.engine.tun.close()

    async def run(
        self,
        restore: Restore | None = None,
        *,
        renew: Renew | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Carry packets until cancelled, or until the interface is deleted from outside.

        `restore` is called when the interface has come up again: the kernel took routes and IPv6
        addresses when it went down. With `renew`, which makes the interface again after it was
        deleted, and says whether it has, sessions and peers are kept. Started once packets are
        carried.
        """
        await self._run_once(restore, task_status)
        while self.is_deleted and renew is not None and await renew():
            self.is_deleted = False
            await self._run_once(restore)

    async def _run_once(
        self,
        restore: Restore | None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Carry packets until the interface is deleted."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.engine.run)
                nursery.start_soon(
                    follow_link, self.engine, self.engine.tun, restore, self.changing
                )
                nursery.start_soon(self.endpoints.run, self.engine)
                nursery.start_soon(self._routes.run)
                nursery.start_soon(self._announce_port)
                nursery.start_soon(self._event_log.run)
                self.engine.settle()
                task_status.started()
        except* TunDeleted:
            self.is_deleted = True

    # --- The UAPI --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        """The state, not while a set is changing it."""
        async with self._applying:
            engine = self.engine
            yield DeviceState(engine.interface, engine.udp.port, engine.udp.fwmark)

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        """Apply all of `changes` in order. Raises UapiError, UdpError: then nothing has changed."""
        try:
            with trio.fail_after(PATIENCE):
                await self.changing.acquire()
        except trio.TooSlowError:
            raise UapiError(errno.EBUSY, "another change of the tunnel is in progress") from None
        try:
            async with self._applying:
                await configure.apply(self.engine, changes, self.endpoints)
        finally:
            self.changing.release()

    async def _announce_port(self) -> None:
        """When the UDP port changes, let peers hear from the new one before we have data for them.

        Otherwise they send to the old one until then.
        """
        engine = self.engine
        port = engine.udp.port
        while True:
            port = await engine.udp.wait_moved(port)
            pace = Pace()
            for peer in list(engine.interface.peers.values()):
                peer.announce(engine.clock())
                engine.settle()
                await pace.step()

    @property
    def refused(self) -> tuple[RefusedHandshake, ...]:
        """The latest refused handshake of each reason."""
        return tuple(self._event_log.refused.values())

    def _handle_event(self, event: Event) -> None:
        self._event_log.log(event)
        self.endpoints.handle_event(event)
        self._routes.handle_event(event)
