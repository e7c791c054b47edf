"""Events that no part of the engine raises: drops by reason, and a UDP port that has changed."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tunnel.control.broadcast import Events
from tunnel.io.udp import Udp

DROPS_PERIOD = 1.0
"""Seconds between two `drops` events."""


async def watch_drops(feed: Events, count: Callable[[], dict[str, int]]) -> None:
    """Report to subscribers which packets were dropped. `count()` gives them by reason so far.

    Costs nothing while there are no subscribers.
    """
    while True:
        await feed.wait_wanted()
        before = count()
        await trio.sleep(DROPS_PERIOD)
        now = count()
        new = {reason: packets - before.get(reason, 0) for reason, packets in now.items()}
        new = {reason: packets for reason, packets in new.items() if packets > 0}
        if new:
            feed.publish("drops", new=new, total=now)


async def watch_port(feed: Events, udp: Udp) -> None:
    """Report every change of the UDP port to subscribers."""
    new = udp.port
    while True:
        old, new = new, await udp.wait_moved(new)
        feed.publish("port", old=old, new=new)
