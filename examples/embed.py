"""Run a tunnel inside a trio program, and tell what happens to it.

sudo python examples/embed.py peer.conf
"""

from __future__ import annotations

import sys

import trio

import tunnel
from tunnel import events

PATIENCE = 10.0
"""Seconds to wait for a handshake. One begins with the first packet to a peer, or at once if the
peer has an Endpoint and PersistentKeepalive; otherwise it may never come.
"""


async def main(conf: str) -> None:
    """Keep the tunnel of `conf` up until its first handshake, then tell how it went."""
    async with tunnel.open(conf) as t:
        # First of all, so that not even the first handshake is missed.
        with t.events() as happening, trio.fail_after(PATIENCE):
            status = await t.status()
            print(f"{t.name} is up on UDP port {status.listen_port}", flush=True)
            # With a persistent keepalive it may have been while the tunnel was set up.
            done = any(peer.latest_handshake for peer in status.peers)
            while not done:
                event = await anext(happening)
                print(event, flush=True)
                done = isinstance(event, events.HandshakeDone)
        for peer in (await t.status()).peers:
            print(f"{peer.public_key} is at {peer.endpoint}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: sudo python {sys.argv[0]} CONF")
    try:
        trio.run(main, sys.argv[1])
    except trio.TooSlowError:
        sys.exit(f"{sys.argv[0]}: no peer has answered")
    except tunnel.TunnelError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{sys.argv[0]}: interrupted; the tunnel is down")
