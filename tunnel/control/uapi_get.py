"""The answer to a `get` of the UAPI, line by line.

Source: https://www.wireguard.com/xplatform/, "Configuration Protocol".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunnel.config.values import network_text
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Interface, Peer, unpack

PIECE = 64
"""Lines of allowed IPs that are made at a time."""

NANOSECONDS = 1_000_000_000


def render(interface: Interface[Endpoint, Any], listen_port: int, fwmark: int) -> Iterator[str]:
    """The lines about the device and all its peers, in pieces that each take some 10 µs.

    The lists are those of the moment at which they are begun, so changes between two pieces do
    not disturb it; but a whole answer is consistent only if there are none.
    """
    if interface.private_key is not None:
        yield f"private_key={interface.private_key.to_hex()}\n"
    if listen_port:
        yield f"listen_port={listen_port}\n"
    if fwmark:
        yield f"fwmark={fwmark}\n"
    for peer in list(interface.peers.values()):
        yield _render_peer(peer)
        yield from _render_networks(interface.allowed_ips.packed_of(peer))


def _render_peer(peer: Peer[Endpoint, Any]) -> str:
    seconds, nanoseconds = divmod(peer.last_handshake_unix_ns, NANOSECONDS)
    return (
        f"public_key={peer.public_key.to_hex()}\n"
        f"preshared_key={peer.preshared_key.to_hex()}\n"
        "protocol_version=1\n"
        + (f"endpoint={peer.endpoint}\n" if peer.endpoint is not None else "")
        + f"last_handshake_time_sec={seconds}\n"
        f"last_handshake_time_nsec={nanoseconds}\n"
        f"tx_bytes={peer.tx_bytes}\n"
        f"rx_bytes={peer.rx_bytes}\n"
        f"persistent_keepalive_interval={peer.persistent_keepalive}\n"
    )


def _render_networks(networks: Iterator[int]) -> Iterator[str]:
    lines: list[str] = []
    for network in networks:
        lines.append(f"allowed_ip={network_text(*unpack(network))}\n")
        if len(lines) == PIECE:
            yield "".join(lines)
            lines.clear()
    if lines:
        yield "".join(lines)
