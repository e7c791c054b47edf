"""Run a tunnel in a program without an event loop.

sudo python examples/blocking.py peer.conf
"""

from __future__ import annotations

import sys
import time

import tunnel
from tunnel import events

PATIENCE = 10.0
"""Seconds to wait for a handshake. One begins with the first packet to a peer, or at once if the
peer has an Endpoint and PersistentKeepalive; otherwise it may never come.
"""


def main(conf: str) -> None:
    """Keep the tunnel of `conf` up until a handshake."""
    ends = time.monotonic() + PATIENCE
    with tunnel.open_sync(conf) as t, t.events() as happening:
        print(f"{t.name} is up on UDP port {t.status().listen_port}", flush=True)
        while not any(peer.latest_handshake for peer in t.status().peers):
            match happening.get(timeout=ends - time.monotonic()):
                case events.HandshakeDone(peer=peer, round_trip=seconds):
                    print(f"{peer} answered in {seconds * 1000:.1f} ms", flush=True)
                case event:
                    print(event, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: sudo python {sys.argv[0]} CONF")
    try:
        main(sys.argv[1])
    except TimeoutError:
        sys.exit(f"{sys.argv[0]}: no peer has answered")
    except tunnel.TunnelError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{sys.argv[0]}: interrupted; the tunnel is down")
