"""The rounds of a benchmark: each subject in turn, in labs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tunnel.bench import gateway, scale, trace_overhead
from tunnel.bench.bench import Bench
from tunnel.bench.subjects import A_OUTER, B_OUTER, Ours, Subject, WireGuardGo
from tunnel.lab.topology import Lab

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

    `many_peers`: with 100 and 10,000 peers too, those that know peers. `progress` is told what goes
    on, and by how many of `steps` it moved.
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
            note(subject.name, title, gateway.measure(subject, seconds))
            if isinstance(subject, Ours) and trace_overhead.missing() is None:
                note(subject.name, title, trace_overhead.measure(subject, seconds))
            if many_peers and isinstance(subject, Ours | WireGuardGo):
                note(subject.name, title, scale.measure(subject, seconds))
    return figures
