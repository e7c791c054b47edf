"""A tunnel that is attached: its interface is where a container is, and its UDP socket is not.

The kernel destroys an interface with its network namespace, and a container's goes with each
restart. So there is a spare namespace, which is empty: a new interface waits in there until the
container is back. Peers and sessions are in this process all the time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
from functools import partial
from types import TracebackType
from typing import Self

import trio

from tunnel import host
from tunnel.control.messages.changes import Attached
from tunnel.control.messages.sentences import sentence
from tunnel.daemon import attach_target
from tunnel.daemon.attach_target import Found, Target
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.host_state import HOME, Location, Surroundings, compute, settle
from tunnel.device.device import Device
from tunnel.errors import DaemonError, TunnelError
from tunnel.host import container_engine
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted
from tunnel.linux.netns import new_namespace
from tunnel.linux.processes import netns_inode

log = logging.getLogger("tunnel")

LOOK_AGAIN = 0.5
"""Seconds between two looks for a named namespace, and for an engine that does not answer."""

TRY_AGAIN = 2.0
"""Seconds from an interface that could not be put where it belongs to the next try."""


class Attachment:
    """To what the tunnel of `daemon` is attached, and what keeps it there. Use it by `with`.

    `target` is None for one that is not attached.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.target: Target | None = None
        self._daemon = daemon
        self._spare: int | None = None
        self._poked = trio.Event()
        self._watching = trio.CancelScope()
        self._following = trio.CancelScope()
        self._retry_at = math.inf
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._spare is not None:
            os.close(self._spare)

    async def load(self) -> None:
        """Take up what was recorded, before the interface is made. Raises TunnelError."""
        daemon = self._daemon
        self.target = await trio.to_thread.run_sync(attach_target.load, daemon.name)
        if self.target is not None:
            attach_target.check_conf(daemon.config, self.target)
            daemon.move_to(await self._spare_place())
            self._say_waiting("")

    async def attach(self, kind: str, name: str, docker_host: str) -> Attached:
        """Move the interface to that target, and keep it there. Raises TunnelError, and then it is
        where it was.
        """
        daemon = self._daemon
        device = daemon.running()
        # First, as without the rights for it nothing can be found.
        attach_target.check_conf(daemon.config, Target(kind, name))
        target, found, notes = await attach_target.choose(kind, name, docker_host)
        async with device.changing:
            with trio.CancelScope(shield=True):
                # What cannot be recorded is refused while nothing has changed.
                await trio.to_thread.run_sync(attach_target.save, daemon.name, target)
                try:
                    await self._go(device, found.place)
                except TunnelError:
                    await trio.to_thread.run_sync(attach_target.save, daemon.name, self.target)
                    raise
                self.target = target
        self._say_attached(found)
        self._watching.cancel()
        self._poked.set()
        return Attached(str(target), notes)

    async def detach(self) -> Attached:
        """Bring the interface home. Raises TunnelError, and then it is where it was."""
        daemon = self._daemon
        device = daemon.running()
        if self.target is None:
            raise DaemonError(f"{daemon.name} is not attached")
        async with device.changing:
            with trio.CancelScope(shield=True):
                before, self.target = self.target, None
                try:
                    await self._go(device, HOME)
                except TunnelError:
                    self.target = before
                    raise
                await trio.to_thread.run_sync(attach_target.save, daemon.name, None)
        self._watching.cancel()
        self._following.cancel()
        daemon.attached = self._said = ""
        self.publish("detached", target=str(before))
        return Attached(str(before))

    async def begin(self) -> None:
        """Put an interface that was just made where it belongs, if that is there."""
        descriptor = await self.sync()
        if descriptor is not None:
            os.close(descriptor)
        self._poked.set()

    async def keep(self) -> None:
        """Have the interface where its target is, however often that ends and returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                with trio.move_on_at(self._retry_at):
                    await self._poked.wait()
                self._poked = trio.Event()
                again = await self.sync()
                if again is not None:
                    nursery.start_soon(self._poke_at_end, again)

    async def renew(self) -> bool:
        """Make an interface that went with its namespace again; whether there is one.

        It waits in the spare namespace for its target.
        """
        daemon, device = self._daemon, self._daemon.device
        if self.target is None or device is None or daemon.is_ending():
            return False
        async with device.changing:
            with trio.CancelScope(shield=True):
                try:
                    await self._undo()
                    place = await self._spare_place()
                    renew = partial(
                        device.engine.tun.renew,
                        daemon.name,
                        device.engine.mtu,
                        place.netns or "",
                    )
                    await trio.to_thread.run_sync(renew)
                    await self._set_up(place)
                except TunnelError as error:
                    log.error("%s cannot be made again: %s", daemon.name, error)
                    return False
        self._say_waiting("its network namespace is gone, and the interface with it")
        self._poked.set()
        return True

    async def sync(self) -> int | None:
        """Put the interface where its target is now, or else into the spare namespace.

        A pidfd to wait on, after which that has changed, if there is one.
        """
        daemon, device, target = self._daemon, self._daemon.device, self.target
        if target is None or device is None:
            return None
        found, reason = await self._look(target)
        place = found.place if found is not None else await self._spare_place()
        async with device.changing:
            with trio.CancelScope(shield=True):
                if self.target is not target or daemon.host is None:
                    return None
                try:
                    if not await self._is_at(device, place):
                        await self._go(device, place)
                except TunDeleted:
                    return None  # `renew` comes next
                except TunnelError as error:
                    self._say_waiting(str(error))
                    self._retry_at = trio.current_time() + TRY_AGAIN
                    return None
        self._retry_at = math.inf
        if found is None:
            self._say_waiting(reason)
            return None
        self._say_attached(found)
        return self._follow(found)

    # --- Where it is -----------------------------------------------------------------------------

    async def _look(self, target: Target) -> tuple[Found | None, str]:
        try:
            found = await attach_target.find(target)
        except TunnelError as error:
            return None, str(error)
        return found, "" if found else "it is not running"

    async def _is_at(self, device: Device, place: Location) -> bool:
        if self._daemon.place != place or place.netns is None:
            return False
        link = await trio.to_thread.run_sync(device.engine.tun.link)
        return netns_inode(place.netns) == link.netns

    async def _spare_place(self) -> Location:
        if self._spare is None:
            try:
                self._spare = await trio.to_thread.run_sync(new_namespace)
            except OSError as error:
                raise DaemonError(
                    f"no network namespace can be made: {error.strerror}; run the daemon as root"
                ) from error
        return Location(f"/proc/{os.getpid()}/fd/{self._spare}", spare=True)

    async def _go(self, device: Device, place: Location) -> None:
        """Move the interface, with all that is around it, for a caller that holds the lock.

        Raises TunnelError; then it is where it was, or in the spare namespace if that is gone.
        """
        daemon = self._daemon
        if daemon.host is None:
            raise DaemonError(f"{daemon.name} is going down")
        before = daemon.place
        await self._compute(place)  # what cannot be is refused while nothing has changed
        await self._undo()
        try:
            await self._move(device, place)
            await self._set_up(place)
        except TunDeleted:
            raise
        except TunnelError:
            await self._retreat(device, before)
            raise

    async def _retreat(self, device: Device, before: Location) -> None:
        for place in (before, await self._spare_place()):
            try:
                await self._undo()
                await self._move(device, place)
                await self._set_up(place)
                return
            except TunnelError as error:
                log.warning("%s cannot be put back: %s", self._daemon.name, error)

    async def _undo(self) -> None:
        """Take away what is around the interface."""
        try:
            await trio.to_thread.run_sync(host.remove, self._daemon.name)
        except host.HostError as error:
            log.warning("not everything could be undone: %s", error)

    async def _move(self, device: Device, place: Location) -> None:
        target = place.netns or f"/proc/{os.getpid()}/ns/net"

        def move() -> None:
            with device.engine.tun.namespace() as origin:
                there = netns_inode(target)
                if there is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                if os.stat(origin).st_ino != there:
                    host.move_link(self._daemon.name, target, origin=origin)

        try:
            await trio.to_thread.run_sync(move)
        except OSError as error:
            raise DaemonError(
                f"{target} has just disappeared: {error.strerror}; try again"
            ) from error

    async def _compute(self, place: Location) -> Surroundings:
        daemon = self._daemon
        around = await compute(daemon.config, self._endpoints(), place=place)
        return around if place.spare else daemon.effects.on_host(daemon.config, around)

    def _endpoints(self) -> list[Endpoint]:
        peers = self._daemon.running().engine.interface.peers
        return [peer.endpoint for peer in peers.values() if peer.endpoint is not None]

    async def _set_up(self, place: Location) -> None:
        """Have around the interface, which is there, what the conf wants."""
        daemon = self._daemon
        engine = daemon.running().engine

        async def take(now: Surroundings) -> None:
            engine.udp.set_fwmark(now.mark)
            engine.mtu = now.state.mtu

        around = await self._compute(place)
        await take(around)
        daemon.host = await settle(
            daemon.config, around, self._endpoints(), moved=take, place=place
        )
        daemon.missing = frozenset()
        daemon.move_to(place)
        await daemon.keep_hooks()

    # --- What happens to the target --------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            with trio.CancelScope() as self._watching:
                match self.target:
                    case Target(kind="container"):
                        await self._watch_engine(self.target.engine)
                    case Target(kind="netns"):
                        await self._watch_name(f"/run/netns/{self.target.name}")
                    case _:
                        await trio.sleep_forever()

    async def _watch_engine(self, engine: str) -> None:
        while True:
            with contextlib.suppress(host.HostError):
                async with contextlib.aclosing(container_engine.starts(engine)) as starts:
                    async for _ in starts:
                        self._poked.set()
            # It is being started again, mostly.
            await trio.sleep(LOOK_AGAIN)

    async def _watch_name(self, path: str) -> None:
        # No event says that a namespace was mounted on the file.
        before: int | None = -1
        while True:
            now = netns_inode(path)
            # A later namespace may have the number of the one before.
            if now != before or self._daemon.place.spare:
                self._poked.set()
            before = now
            await trio.sleep(LOOK_AGAIN)

    def _follow(self, found: Found) -> int | None:
        """A pidfd of the first process of the target; None if there is none to follow."""
        if not found.pid or found.place.netns is None:
            return None
        self._following.cancel()
        try:
            descriptor = os.pidfd_open(found.pid)
        except OSError:
            self._poked.set()
            return None
        # That it is still the one we looked at.
        if netns_inode(found.place.netns) is None:
            self._poked.set()
        return descriptor

    async def _poke_at_end(self, descriptor: int) -> None:
        try:
            with trio.CancelScope() as self._following:
                await trio.lowlevel.wait_readable(descriptor)
                self._poked.set()
        finally:
            os.close(descriptor)

    # --- What is said of it ----------------------------------------------------------------------

    def _say_attached(self, found: Found) -> None:
        self._daemon.attached = str(self.target)
        if self._said != str(found):
            self._said = str(found)
            self.publish("attached", target=str(self.target), netns=found.place.netns or "")

    def _say_waiting(self, reason: str) -> None:
        text = f"{self.target}, waiting for it" + (f": {reason}" if reason else "")
        self._daemon.attached = text
        if self._said != "waiting":
            self._said = "waiting"
            self.publish("waiting", target=str(self.target), reason=reason)

    def publish(self, kind: str, **details: str) -> None:
        """Log it, and have it among the events."""
        log.info("%s", sentence(kind, details))
        self._daemon.feed.publish(kind, **details)
        self._daemon.keep_descriptors()
