"""What many configured peers cost: throughput and memory, and how many handshakes are answered."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tunnel.bench.bench import joined
from tunnel.bench.subjects import B_OUTER, Scalable
from tunnel.lab.peers import PORT

PEERS = 10_000
"""Configured on either side, the one under load included."""
HANDSHAKES = 2_000
"""How many of the peers shake hands, once each."""


@functools.cache
def peers_conf(count: int) -> str:
    """Sections of `count` peers that are configured and not there.

    Their keys are those of tunnel.bench.handshake_load, which sends their handshakes.
    """
    return "".join(
        f"\n[Peer]\nPublicKey = {_public_key(number)}\n"
        f"AllowedIPs = 10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32\n"
        for number in range(count)
    )


def _public_key(number: int) -> str:
    secret = hashlib.blake2s(b"tunnel bench peer %d" % number).digest()
    public = X25519PrivateKey.from_private_bytes(secret).public_key()
    return base64.b64encode(public.public_bytes_raw()).decode()


def measure(subject: Scalable, seconds: float) -> dict[str, float]:
    """Figures by metric key, of two ends with `PEERS` peers each, in a lab of their own."""
    larger = subject.with_more_peers(peers_conf(PEERS - 1))
    with joined(larger, seconds) as bench:
        bench.begin()
        throughput = bench.tcp()["tcp"]
        rss = bench.memory()["rss"]
        # As a peer of no address, beside the tunnel that is up.
        printed = bench.a.run(
            [
                *(sys.executable, "-m", "tunnel.bench.handshake_load", larger.server_key),
                *(B_OUTER, str(PORT), str(HANDSHAKES)),
            ],
            timeout=120,
        ).stdout
    result = json.loads(printed)
    return {
        "tcp_peers10000": throughput,
        "rss_peers10000": rss,
        "handshakes": result["answered"] / result["seconds"],
    }
