"""Run a tunnel inside an asyncio program, beside its other tasks.

sudo python examples/with_asyncio.py peer.conf
"""

from __future__ import annotations

import asyncio
import sys

import tunnel
from tunnel import events

PATIENCE = 10.0
"""Seconds to wait for a handshake. One begins with the first packet to a peer, or at once if the
peer has an Endpoint and PersistentKeepalive; otherwise it may never come.
"""


async def tell(t: tunnel.AsyncioTunnel) -> None:
    """Print what happens to the tunnel, until a handshake."""
    async with t.events() as happening:
        async for event in happening:
            print(event, flush=True)
            if isinstance(event, events.HandshakeDone):
                return


async def main(conf: str) -> None:
    """Keep the tunnel of `conf` up until a handshake."""
    async with (
        tunnel.open_asyncio(conf) as t,
        asyncio.timeout(PATIENCE),
        asyncio.TaskGroup() as tasks,
    ):
        telling = tasks.create_task(tell(t))
        status = await t.status()
        print(f"{t.name} is up on UDP port {status.listen_port}", flush=True)
        if any(peer.latest_handshake for peer in status.peers):
            telling.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: sudo python {sys.argv[0]} CONF")
    try:
        asyncio.run(main(sys.argv[1]))
    except TimeoutError:
        sys.exit(f"{sys.argv[0]}: no peer has answered")
    except tunnel.TunnelError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{sys.argv[0]}: interrupted; the tunnel is down")
