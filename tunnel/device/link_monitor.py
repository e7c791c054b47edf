"""Follow the interface: its MTU, whether it is up, and into which network namespace it is moved.

Where the device is in our network namespace, rtnetlink reports every change. One that was moved
to another is polled by its descriptor: a socket of ours over there would keep that namespace alive
after its owner has removed it. Its packets need no socket.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.engine import Engine
from tunnel.errors import unwrapped
from tunnel.host.errors import HostError
from tunnel.host.links import UNLIMITED_SEGMENTS, forwards, limit_segments
from tunnel.host.watch import LinkGone, watch_link
from tunnel.io.errors import TunDeleted, TunError
from tunnel.io.tun import Tun
from tunnel.io.udp_socket import segments_per_batch
from tunnel.packet.ethernet import OVERHEAD

log = logging.getLogger("tunnel")

LOOK_AGAIN = 1.0
"""Seconds between two polls of a device in another namespace. Packets longer than the last known
MTU are carried all the same."""

LOOK_AT_FORWARDING = 5.0
"""Seconds between two polls of whether this host forwards packets."""

SETTLE = 0.02
"""Seconds from the first event of a move to its end."""


Restore = Callable[[], Awaitable[None]]


async def follow_link(
    engine: Engine, tun: Tun, restore: Restore | None = None, changing: trio.Lock | None = None
) -> None:
    """Follow the interface of `tun` until it is deleted, which raises TunDeleted.

    `restore` is called when the interface has come up again in our namespace: with its going down
    the kernel took routes and IPv6 addresses away. Who holds `changing` may be moving it to another
    namespace, where it is down for a moment: that ends no session.
    """
    follower = _Follower(engine, restore)
    here: bool | None = None
    reachable = True
    while True:
        try:
            link = await trio.to_thread.run_sync(tun.link)
        except TunDeleted:
            raise
        except TunError as error:
            if reachable:
                log.warning("MTU and state of the interface stay as they were: %s", error)
            reachable = False
            await trio.sleep(LOOK_AGAIN)
            continue
        reachable = True
        if not link.up and changing is not None and changing.locked():
            async with changing:
                continue
        await follower.take(link.mtu, up=link.up, ifindex=link.ifindex if link.here else None)
        if link.here is not here:
            if here is not None:
                place = "back in our" if link.here else "in another"
                log.info("the interface is now %s network namespace, as %s", place, link.name)
            here = link.here
        if not link.here:
            await trio.sleep(LOOK_AGAIN)
            continue
        try:
            await _follow_events(follower, link.ifindex, changing)
        except HostError as error:
            log.warning("%s", error)
            await trio.sleep(LOOK_AGAIN)
        # Moved, or gone; the next poll shows which.
        await trio.sleep(SETTLE)


async def _follow_events(follower: _Follower, ifindex: int, changing: trio.Lock | None) -> None:
    with watch_link(ifindex) as events, unwrapped(HostError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow_forwarding, follower)
            async for event in events:
                if isinstance(event, LinkGone):
                    break
                if not event.up and changing is not None and changing.locked():
                    async with changing:
                        break  # as it is by then
                await follower.take(event.mtu, up=event.up, ifindex=ifindex)
            nursery.cancel_scope.cancel()


async def _follow_forwarding(follower: _Follower) -> None:
    """No event reports that this host has become a router."""
    while True:
        await trio.sleep(LOOK_AT_FORWARDING)
        await follower.fit_frames()


def fitting_segments(mtu: int, *, ethernet: bool = False) -> int:
    """How many TCP segments a frame may have, so that it is sent by one call once it is sealed,
    with a tail if there has to be one.

    With `ethernet` it is one of a TAP.
    """
    before = (OVERHEAD if ethernet else 0) + MESSAGE_OVERHEAD
    return segments_per_batch(mtu + before, tail=MESSAGE_OVERHEAD)


class _Follower:
    """What is known of the interface; passes it on to the engine."""

    def __init__(self, engine: Engine, restore: Restore | None) -> None:
        self._engine = engine
        self._restore = restore
        self._up: bool | None = None
        self._ifindex: int | None = None
        self._segments = UNLIMITED_SEGMENTS

    async def take(self, mtu: int, *, up: bool, ifindex: int | None) -> None:
        """Take the state of the interface; `ifindex` is None while it is in another namespace."""
        if mtu != self._engine.mtu:
            log.info("the MTU is now %d", mtu)
            self._engine.mtu = mtu
        before, self._up = self._up, up
        if before is not None and before is not up:
            log.info("the interface was set %s", "up" if up else "down: no packet passes")
        self._engine.set_link_up(up)
        self._ifindex = ifindex
        await self.fit_frames()
        if up and before is False and self._restore is not None:
            await self._restore()

    async def fit_frames(self) -> None:
        """Limit the kernel's frames so that each, once sealed, is sent by one call.

        Without a limit it fills 64 KiB, and a few packets are left over for a call of their own on
        the way out, a batch of their own on the way in: that costs a quarter of the throughput. But
        a *forwarded* frame that has more segments than the limit is split into single packets, so
        there is no limit on a host that forwards, nor for the port of a bridge.
        """
        if self._ifindex is None:
            return
        try:
            segments = fitting_segments(self._engine.mtu, ethernet=self._engine.tun.tap)
            if await trio.to_thread.run_sync(forwards, self._ifindex):
                segments = UNLIMITED_SEGMENTS
            if segments != self._segments:
                self._segments = segments
                await trio.to_thread.run_sync(limit_segments, self._ifindex, segments)
        except (HostError, OSError) as error:
            log.info("frames may leave in two calls: %s", error)
