"""TCP out of a gateway: a host behind B sends, B forwards into the tunnel, A receives.

What is forwarded into a TUN was cut by another device than what is sent there by B itself, and no
host that forwards may ask for frames of the size it likes best. B publishes a port of the host
behind (DNAT), so that no subject has to know of the network there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.bench.bench import Bench, gbits
from tunnel.bench.subjects import A_OUTER, B_OUTER, Subject
from tunnel.lab.topology import Lab

GATEWAY, BEHIND = "198.51.100.1", "198.51.100.2"
PUBLISHED = 5202


def measure(subject: Subject, seconds: float) -> Iterator[dict[str, float]]:
    """The figure by metric key, from a lab of its own."""
    with Lab() as lab:
        a, b, behind = lab.host("a"), lab.host("b"), lab.host("behind")
        lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
        lab.link(b, behind, [f"{GATEWAY}/24"], [f"{BEHIND}/24"])
        behind.ip(f"route add default via {GATEWAY}")
        b.set_sysctl("net.ipv4.ip_forward", "1")
        b.nft(
            "table ip published { chain prerouting { type nat hook prerouting priority dstnat; "
            f"tcp dport {PUBLISHED} dnat to {BEHIND}; }}; }}"
        )
        bench = Bench(a, b, subject, seconds)
        bench.begin()
        yield {"tcp_gateway": gbits(bench.iperf("-R", server=behind, port=PUBLISHED))}
