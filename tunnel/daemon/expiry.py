"""Peers whose time is over, by a comment `# expires = TIME`, leave the running tunnel."""

from __future__ import annotations

import contextlib
import logging
import time

import trio

from tunnel.config.expiry import expired, next_expiry
from tunnel.control.messages.changes import named
from tunnel.daemon.daemon import Daemon
from tunnel.errors import TunnelError

log = logging.getLogger("tunnel")

LOOK = 10.0
"""Seconds between two looks at most: the clock may be set meanwhile, a reload may bring peers."""


async def watch_expiry(daemon: Daemon) -> None:
    """Remove each peer when its time is over, until cancelled. Those that are over at the start, or
    at a reload, are not there in the first place.
    """
    while True:
        due = next_expiry(daemon.config)
        left = LOOK if due is None else due - time.time()
        if left <= 0:
            for peer in expired(daemon.config.peers, time.time()):
                key = peer.public_key.to_base64()
                log.info("peer %s has expired", named(key, peer.friendly_name))
            # The daemon reports a failure, and the next look tries again.
            with contextlib.suppress(TunnelError):
                await daemon.reload(daemon.config)
        await trio.sleep(min(LOOK, left) if left > 0 else LOOK)
