"""Keep an engine as its interface is: MTU, up or down, wherever the interface was moved.

Where the device is in our network namespace, rtnetlink tells of every change. One that was moved
to another is asked for, by its descriptor, once in a while: a socket of ours over there would keep
that namespace alive after its owner has removed it. Its packets need no socket.
"""

from __future__ import annotations

import logging

import trio

from tunnel.engine import Engine
from tunnel.host.errors import HostError
from tunnel.host.watch import LinkGone, watch_link
from tunnel.io.errors import TunDeleted, TunError
from tunnel.io.tun import Tun

log = logging.getLogger("tunnel")

LOOK_AGAIN = 1.0
"""Seconds between two looks at a device in another namespace. A packet longer than the MTU that we
know is carried all the same."""

SETTLE = 0.02
"""Seconds for a move to be over when its first event arrives."""


async def follow_link(engine: Engine, tun: Tun) -> None:
    """Follow the interface of `tun` until it is deleted, which raises TunDeleted."""
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
        _take(engine, link.mtu, up=link.up)
        if link.here is not here:
            if here is not None:
                place = "back in our" if link.here else "in another"
                log.info("the interface is now %s network namespace, as %s", place, link.name)
            here = link.here
        if not link.here:
            await trio.sleep(LOOK_AGAIN)
            continue
        try:
            await _follow_events(engine, link.ifindex)
        except HostError as error:
            log.warning("%s", error)
            await trio.sleep(LOOK_AGAIN)
        # Moved, or gone; the next look tells which.
        await trio.sleep(SETTLE)


async def _follow_events(engine: Engine, ifindex: int) -> None:
    with watch_link(ifindex) as events:
        async for event in events:
            if isinstance(event, LinkGone):
                return
            _take(engine, event.mtu, up=event.up)


def _take(engine: Engine, mtu: int, *, up: bool) -> None:
    if mtu != engine.mtu:
        log.info("the MTU is now %d", mtu)
        engine.mtu = mtu
    engine.set_link_up(up)
