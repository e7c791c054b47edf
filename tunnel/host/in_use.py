"""What a new tunnel must not collide with: networks that this host has routes to, and UDP ports."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tunnel.host import route_messages
from tunnel.linux.networks import Network


def networks_in_use() -> tuple[Network, ...]:
    """Where the routes of all tables lead, the addresses of this host among them, no default route.

    Raises OSError.
    """
    found: dict[Network, None] = {}
    for entry in (*route_messages.dump(4), *route_messages.dump(6)):
        if entry.bits:
            found[entry.network] = None
    return tuple(found)


def udp_ports_in_use() -> frozenset[int]:
    """UDP ports of this network namespace that a socket has (proc_net_udp(5))."""
    found = set()
    for file in ("udp", "udp6"):
        with suppress(OSError):
            for line in Path("/proc/thread-self/net", file).read_text().splitlines()[1:]:
                found.add(int(line.split()[1].rpartition(":")[2], 16))
    return frozenset(found)
