"""The rounds of a benchmark: each contender in turn, in labs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tunnel.bench import gateway, scale, trace_overhead
from tunnel.bench.bench import Bench
from tunnel.bench.subjects import A_OUTER, B_OUTER, Contender, Ours, WireGuardGo
from tunnel.lab.topology import Lab

_STEPS = 11
_TRACED_STEPS = 2
_CROWDED_STEPS = len(scale.COUNTS) + 2


def steps(contenders: Iterable[Contender], *, crowded: bool) -> int:
    """How many steps `measure` reports in one round."""
    return sum(
        _STEPS
        + (_TRACED_STEPS if isinstance(each, Ours) and trace_overhead.missing() is None else 0)
        + (_CROWDED_STEPS if crowded and isinstance(each, Ours | WireGuardGo) else 0)
        for each in contenders
    )


def measure(
    contenders: list[Contender],
    *,
    rounds: int,
    seconds: float,
    crowded: bool = True,
    progress: Callable[[str, int], None] = lambda what, steps: None,
) -> dict[str, dict[str, list[float]]]:
    """Every contender in turn, round by round; figures by contender's name and metric key.

    `crowded`: with 100 and 10,000 peers too, those that know peers. `progress` is told what goes
    on, and by how many of `steps` it moved.
    """
    figures: dict[str, dict[str, list[float]]] = {each.name: {} for each in contenders}

    def note(name: str, title: str, coming: Iterable[dict[str, float]]) -> None:
        for found in coming:
            progress(title, 1)
            for key, value in found.items():
                figures[name].setdefault(key, []).append(value)

    for number in range(1, rounds + 1):
        for contender in contenders:
            title = f"round {number} of {rounds}: {contender.name}"
            progress(title, 0)
            with Lab() as lab:
                a, b = lab.host("a"), lab.host("b")
                lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
                note(contender.name, title, Bench(a, b, contender, seconds).run())
            note(contender.name, title, gateway.measure(contender, seconds))
            if isinstance(contender, Ours) and trace_overhead.missing() is None:
                note(contender.name, title, trace_overhead.measure(contender, seconds))
            if crowded and isinstance(contender, Ours | WireGuardGo):
                note(contender.name, title, scale.measure(contender, seconds))
    return figures
