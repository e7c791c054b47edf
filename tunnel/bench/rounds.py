"""The rounds of a benchmark: each subject in turn, in labs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tunnel.bench import scale, trace_overhead
from tunnel.bench.bench import Bench, gbits
from tunnel.bench.subjects import A_OUTER, B_OUTER, Ours, Subject, WireGuardGo
from tunnel.lab.topology import Lab

GATEWAY, BEHIND = "198.51.100.1", "198.51.100.2"
PUBLISHED = 5202

_STEPS = 11
_TRACED_STEPS = 2
_MANY_PEERS_STEPS = len(scale.COUNTS) + 2


def steps(subjects: Iterable[Subject], *, many_peers: bool) -> int:
    """How many steps `measure` reports in one round."""
    return sum(
        _STEPS
        + (_TRACED_STEPS if isinstance(each, Ours) and trace_overhead.missing() is None else 0)
        + (_MANY_PEERS_STEPS if many_peers and isinstance(each, Ours | WireGuardGo) else 0)
        for each in subjects
    )


def measure(
    subjects: list[Subject],
    *,
    rounds: int,
    seconds: float,
    many_peers: bool = True,
    progress: Callable[[str, int], None] = lambda what, steps: None,
) -> dict[str, dict[str, list[float]]]:
    """Every subject in turn, round by round; figures by subject's name and metric key.

    `many_peers`: with 100 and 10,000 peers too, those that know peers. `progress` is called
    with what is measured, and how many of `steps` are done.
    """
    figures: dict[str, dict[str, list[float]]] = {each.name: {} for each in subjects}

    def note(name: str, title: str, coming: Iterable[dict[str, float]]) -> None:
        for found in coming:
            progress(title, 1)
            for key, value in found.items():
                figures[name].setdefault(key, []).append(value)

    for number in range(1, rounds + 1):
        for subject in subjects:
            title = f"round {number} of {rounds}: {subject.name}"
            progress(title, 0)
            with Lab() as lab:
                a, b = lab.host("a"), lab.host("b")
                lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
                note(subject.name, title, Bench(a, b, subject, seconds).run())
            note(subject.name, title, measure_gateway(subject, seconds))
            if isinstance(subject, Ours) and trace_overhead.missing() is None:
                note(subject.name, title, trace_overhead.measure(subject, seconds))
            if many_peers and isinstance(subject, Ours | WireGuardGo):
                note(subject.name, title, scale.measure(subject, seconds))
    return figures


def measure_gateway(subject: Subject, seconds: float) -> Iterator[dict[str, float]]:
    """The figure by metric key: TCP from a host behind B, forwarded into the tunnel and to A.

    Such frames were cut by another device, and a forwarding host may not ask for larger ones. B
    publishes a port of the host behind (DNAT): no subject has to know of the network there.
    """
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
