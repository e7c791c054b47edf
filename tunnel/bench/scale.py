"""What many configured peers cost: throughput and memory, and how many handshakes are answered."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import sys
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tunnel.bench.bench import Bench
from tunnel.bench.subjects import A_OUTER, B_OUTER, Scalable
from tunnel.lab.peers import PORT
from tunnel.lab.topology import Lab

COUNTS = (1, 100, 10_000)
"""Peers configured on either side, the one under load included. One is measured here
once more, so that it was measured as the others are and at the same time."""
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


def measure(subject: Scalable, seconds: float) -> Iterator[dict[str, float]]:
    """Figures by metric key, for each of `COUNTS` in a lab of its own."""
    throughput: dict[int, float] = {}
    for count in COUNTS:
        larger = subject.with_more_peers(peers_conf(count - 1))
        with Lab() as lab:
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
            found = Bench(a, b, larger, seconds).run_with_many_peers()
            throughput[count] = found["tcp"]
            yield {f"{key}_peers{count}": value for key, value in found.items()}
            if count > HANDSHAKES:
                # As a peer of no address, beside the tunnel that is up.
                printed = a.run(
                    [
                        *(sys.executable, "-m", "tunnel.bench.handshake_load", larger.server_key),
                        *(B_OUTER, str(PORT), str(HANDSHAKES)),
                    ],
                    timeout=120,
                ).stdout
                result = json.loads(printed)
                yield {"handshakes": result["answered"] / result["seconds"]}
    yield {"tcp_many_peers": throughput[COUNTS[-1]] / throughput[COUNTS[0]]}
