"""What a benchmark prints: a table that fits a terminal, and a report for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal, TypedDict

from tunnel.bench.figures import Figures, Metric, middles, ratios


class MetricReport(TypedDict):
    """What a metric is, and whether more of it is better."""

    title: str
    unit: str
    better: Literal["higher", "lower"]


class Ratio(TypedDict):
    """The median of the quotients of all rounds, and their spread."""

    median: float
    spread: float | None


class BenchReport(TypedDict):
    """What was measured, by subject and metric: a figure of each round, and what follows from them.

    `seconds` is how long each load lasted. A spread is half the distance of the quartiles, as a
    part of the median. `ratios` are those of the first subject to each other one.
    """

    rounds: int
    seconds: float
    metrics: dict[str, MetricReport]
    figures: dict[str, dict[str, list[float]]]
    medians: dict[str, dict[str, float]]
    spreads: dict[str, dict[str, float | None]]
    ratios: dict[str, dict[str, Ratio]]


_TITLE, _COLUMN = 26, 13
"""Widths. A figure and its spread take 12 columns at most."""


def number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(
    figures: Figures, metrics: Sequence[Metric], *, rounds: int, seconds: float
) -> BenchReport:
    """All that was measured, and what follows from it."""
    middle = middles(figures)
    first = next(iter(figures))
    return {
        "rounds": rounds,
        "seconds": seconds,
        "metrics": {
            each.key: {
                "title": each.title,
                "unit": each.unit,
                "better": "higher" if each.higher else "lower",
            }
            for each in metrics
            if any(each.key in found for found in figures.values())
        },
        "figures": figures,
        "medians": {
            name: {key: each.median for key, each in found.items()}
            for name, found in middle.items()
        },
        "spreads": {
            name: {key: each.spread for key, each in found.items()}
            for name, found in middle.items()
        },
        "ratios": {
            name: {
                key: {"median": each.median, "spread": each.spread} for key, each in found.items()
            }
            for name, found in ratios(figures, first).items()
        },
    }


def table(figures: Figures, metrics: Sequence[Metric], *, width: int) -> list[str]:
    """Lines of at most `width` columns, if that is 52 or more.

    Each metric has two lines: the figures with their spread; and below, the ratio of the first
    subject to each of the others. Subjects that find no room stand in a table below.
    """
    first, *others = figures
    beside = max(1, (width - _TITLE) // _COLUMN - 1)
    lines: list[str] = []
    for at in range(0, max(1, len(others)), beside):
        names = [first, *others[at : at + beside]]
        lines += [*([""] if lines else []), *_part(figures, metrics, names)]
    return lines


def _part(figures: Figures, metrics: Sequence[Metric], names: Sequence[str]) -> list[str]:
    middle, compared = middles(figures), ratios(figures, names[0])
    lines = _beside([""], [textwrap.wrap(name, _COLUMN - 1) for name in names])
    lines.append("─" * (_TITLE + _COLUMN * len(names)))
    for metric in metrics:
        if not any(metric.key in figures[name] for name in names):
            continue
        cells = []
        for name in names:
            each = middle[name].get(metric.key)
            cell = ["–"]
            if each is not None:
                spread = "" if each.spread is None else f" ±{each.spread:.0%}"
                cell = [number(each.median) + spread]
                quotient = compared.get(name, {}).get(metric.key)
                if quotient is not None and metric.unit != "ratio":
                    cell.append(f"{quotient.median:.2f}")
            cells.append(cell)
        unit = "" if metric.unit == "ratio" else f", {metric.unit}"
        lines += _beside(textwrap.wrap(metric.title + unit, _TITLE - 1), cells)
    return lines


def _beside(title: list[str], cells: Sequence[list[str]]) -> list[str]:
    """The lines of the cells of one row, in their columns."""
    lines = []
    for at in range(max(len(title), *(len(cell) for cell in cells))):
        line = (title[at] if at < len(title) else "").ljust(_TITLE)
        for cell in cells:
            line += (cell[at] if at < len(cell) else "").rjust(_COLUMN)
        lines.append(line.rstrip())
    return lines
