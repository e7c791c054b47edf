"""Run a tunnel inside a trio program, and tell what happens to it.

sudo python examples/embed.py peer.conf
"""

from __future__ import annotations

import sys

import trio

import tunnel


async def main(conf: str) -> None:
    """Keep the tunnel of `conf` up until its first handshake, then tell how it went."""
    async with tunnel.open(conf) as t:
        # First of all, so that not even the first handshake is missed.
        with t.events() as events:
            status = await t.status()
            print(f"{t.name} is up on UDP port {status.listen_port}", flush=True)
            # With a persistent keepalive it may have been while the tunnel was set up.
            done = any(peer.latest_handshake for peer in status.peers)
            while not done:
                event = await anext(events)
                print(event.type, event.details, flush=True)
                done = event.type == "handshake" and event.details["outcome"] == "completed"
        for peer in (await t.status()).peers:
            print(f"{peer.public_key} is at {peer.endpoint}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: sudo python {sys.argv[0]} CONF")
    trio.run(main, sys.argv[1])
