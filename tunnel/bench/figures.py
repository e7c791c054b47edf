"""The arithmetic of a benchmark: medians, spreads, and ratios of what was measured in turn.

Both ends share the machine, and the machine is shared with others: a figure by itself says little.
What counts is the ratio of two subjects in the same round, and its median over the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeAlias

Figures: TypeAlias = dict[str, dict[str, list[float]]]
"""By subject's name and metric key, one number for each round."""


@dataclass(frozen=True)
class Metric:
    """One figure: `key` for programs, `title` for people; `higher` says which way is better."""

    key: str
    title: str
    unit: str
    higher: bool = True


@dataclass(frozen=True)
class Middle:
    """The median of the rounds, and half the distance between the quartiles as a part of it."""

    median: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Middle:
        """Of one number or more. A single one has no spread, nor has a median of zero."""
        middle = median(values)
        if len(values) < 2 or not middle:
            return cls(middle, None)
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, (high - low) / 2 / abs(middle))


def middles(figures: Figures) -> dict[str, dict[str, Middle]]:
    """The median and spread of every figure."""
    return {
        name: {key: Middle.of(values) for key, values in found.items()}
        for name, found in figures.items()
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Middle | None:
    """`ours` ÷ `theirs`, round by round; None if no round has both, or theirs is zero."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=False) if other]
    return Middle.of(pairs) if pairs else None


def ratios(figures: Figures, first: str) -> dict[str, dict[str, Middle]]:
    """Those of the subject `first` to each other one, by its name and metric key."""
    found: dict[str, dict[str, Middle]] = {}
    for name, theirs in figures.items():
        if name != first:
            found[name] = {
                key: middle
                for key, values in theirs.items()
                if (middle := ratio(figures[first].get(key, ()), values)) is not None
            }
    return found


def is_clearly_worse(
    metric: Metric, new: Sequence[float], base: Sequence[float], *, margin: float
) -> bool:
    """Whether `new` is worse than `base`, beyond what the rounds differ by.

    Every round must say so, and the median of the ratios must be worse by more than `margin` and
    by more than the distance of their quartiles: chance alone gets there once in some hundred
    figures of five rounds.
    """
    pairs = zip(new, base, strict=False) if metric.higher else zip(base, new, strict=False)
    losses = [1 - worse / better for worse, better in pairs if better]
    if not losses:
        return False
    if len(losses) > 1:
        low, _, high = quantiles(losses, n=4, method="inclusive")
        margin = max(margin, high - low)
    return min(losses) > 0 and median(losses) > margin
