"""The rows of a benchmark's table: what is measured, of which subjects, and by what."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import cast

from tunnel.bench import scale, trace_overhead
from tunnel.bench.bench import Bench, cabled, gbits, joined
from tunnel.bench.figures import Metric
from tunnel.bench.subjects import UNENCRYPTED, Ours, Scalable, Subject, WireGuardGo, not_installed
from tunnel.lab.topology import Lab

GATEWAY, BEHIND = "198.51.100.1", "198.51.100.2"
PUBLISHED = 5202
STARTS = 3
LOOPS = frozenset({"tcp", "tcp8", "udp1300", "steady1300"})
"""The rows that say something of a loop without encryption."""


@dataclass(frozen=True)
class Row:
    """What is measured at once. `name` is for the command line.

    `measure` gets the hosts of a subject that is up, and gives figures by metric key. `of` says
    which subjects it is for, `program` what it calls beside iperf3 and ping. `is_quick`: it takes
    a few seconds.
    """

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Bench], dict[str, float]]
    of: tuple[type, ...] = (object,)
    program: str | None = None
    is_quick: bool = True

    def missing(self) -> str | None:
        """What this machine lacks for it, or None."""
        if self.program is None or shutil.which(self.program):
            return None
        return not_installed(self.program)

    def fits(self, subject: Subject) -> bool:
        """Whether the subject can be measured by it, and is worth the time."""
        if subject.name == UNENCRYPTED and self.name not in LOOPS:
            return False
        return isinstance(subject, self.of)


def start(bench: Bench) -> dict[str, float]:
    """From `up` to the first ping, of tunnels of its own."""
    times = []
    for _ in range(STARTS):
        with joined(copy.copy(bench.subject), bench.seconds) as fresh:
            times.append(fresh.first_ping())
    return {"first_ping": median(times)}


def gateway(bench: Bench) -> dict[str, float]:
    """TCP from a host behind B, forwarded into the tunnel and to A, in a lab of its own.

    Such frames were cut by another device, and a forwarding host may not ask for larger ones. B
    publishes a port of the host behind (DNAT): no subject has to know of the network there.
    """
    with Lab() as lab:
        fresh = cabled(lab, copy.copy(bench.subject), bench.seconds)
        behind = lab.host("behind")
        lab.link(fresh.b, behind, [f"{GATEWAY}/24"], [f"{BEHIND}/24"])
        behind.ip(f"route add default via {GATEWAY}")
        fresh.b.set_sysctl("net.ipv4.ip_forward", "1")
        fresh.b.nft(
            "table ip published { chain prerouting { type nat hook prerouting priority dstnat; "
            f"tcp dport {PUBLISHED} dnat to {BEHIND}; }}; }}"
        )
        fresh.begin()
        return {"tcp_gateway": gbits(fresh.iperf("-R", server=behind, port=PUBLISHED))}


def peers(bench: Bench) -> dict[str, float]:
    """What many peers cost."""
    return scale.measure(cast(Scalable, bench.subject), bench.seconds)


def trace(bench: Bench) -> dict[str, float]:
    """What a trace leaves behind."""
    return trace_overhead.measure(cast(Ours, bench.subject), bench.seconds)


_WIREGUARD = (Ours, WireGuardGo)

ROWS = (
    Row("start", (Metric("first_ping", "up to first ping", "s", False),), start),
    Row(
        "idle",
        (
            Metric("rtt_p50", "round trip, idle, p50", "µs", False),
            Metric("rtt_p99", "round trip, idle, p99", "µs", False),
            Metric("cpu_ping", "CPU per ping", "µs", False),
        ),
        Bench.idle,
    ),
    Row(
        "tcp",
        (
            Metric("tcp", "TCP, one stream", "Gbit/s"),
            Metric("cpu", "CPU per GB of TCP", "s", False),
        ),
        Bench.tcp,
    ),
    Row("tcp8", (Metric("tcp8", "TCP, eight streams", "Gbit/s"),), Bench.eight),
    Row("both", (Metric("tcp_both", "TCP, both ways, sum", "Gbit/s"),), Bench.both),
    Row(
        "loaded",
        (
            Metric("rtt_loaded_p50", "round trip beside TCP, p50", "µs", False),
            Metric("rtt_loaded_p99", "round trip beside TCP, p99", "µs", False),
        ),
        Bench.loaded,
    ),
    Row(
        "udp1300",
        (Metric("udp1300", "UDP 1,300 B flood, delivered", "kpps"),),
        partial(Bench.flood, size=1300),
    ),
    Row(
        "udp64",
        (Metric("udp64", "UDP 64 B flood, delivered", "kpps"),),
        partial(Bench.flood, size=64),
    ),
    Row(
        "steady1300",
        (
            Metric("cpu1300", "CPU per packet, UDP 1,300 B at 19 kpps", "µs", False),
            Metric("loss1300", "lost of these", "%", False),
        ),
        partial(Bench.steady, size=1300, rate=19_000),
    ),
    Row(
        "steady64",
        (
            Metric("cpu64", "CPU per packet, UDP 64 B at 39 kpps", "µs", False),
            Metric("loss64", "lost of these", "%", False),
        ),
        partial(Bench.steady, size=64, rate=39_000),
    ),
    Row(
        "junk",
        (
            Metric("tcp_junk", "TCP in a flood of junk", "Gbit/s"),
            Metric("tcp_junk_kept", "TCP in the flood ÷ before", "ratio"),
        ),
        Bench.junk,
        of=_WIREGUARD,
    ),
    Row("memory", (Metric("rss", "memory of one end", "MiB", False),), Bench.memory),
    Row(
        "gateway",
        (Metric("tcp_gateway", "TCP out of a gateway", "Gbit/s"),),
        gateway,
        program="nft",
    ),
    Row(
        "peers",
        (
            Metric("tcp_peers10000", "TCP, 10,000 peers", "Gbit/s"),
            Metric("rss_peers10000", "memory of one end, 10,000 peers", "MiB", False),
            Metric("handshakes", "handshakes answered", "1/s"),
        ),
        peers,
        of=_WIREGUARD,
        is_quick=False,
    ),
    Row(
        "trace",
        (
            Metric("untraced", "TCP of two alike, never traced", "ratio"),
            Metric("traced", "TCP after a trace ÷ never traced", "ratio"),
            Metric("untraced_cpu", "CPU of two alike, never traced", "ratio", False),
            Metric("traced_cpu", "CPU after a trace ÷ never traced", "ratio", False),
        ),
        trace,
        of=(Ours,),
        program="nft",
        is_quick=False,
    ),
)
"""In the order in which they are measured and printed."""

METRICS = tuple(metric for row in ROWS for metric in row.metrics)


def chosen(names: Iterable[str]) -> tuple[Row, ...]:
    """The rows of these names, in the order of `ROWS`. Raises KeyError for one there is not."""
    wanted = set(names)
    if unknown := wanted - {row.name for row in ROWS}:
        raise KeyError(", ".join(sorted(unknown)))
    return tuple(row for row in ROWS if row.name in wanted)
