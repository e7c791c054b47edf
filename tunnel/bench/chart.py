"""A bar chart of a benchmark as SVG: one group of bars for each metric, relative to the first."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tunnel.bench.figures import Metric
from tunnel.bench.report import number

_COLOURS = ("#1b6ca8", "#76b5e0", "#e08e45", "#8f8f8f", "#5a9367", "#b56b9d", "#c9b458")
_WIDTH, _LEFT, _BAR, _GAP, _TOP = 900, 290, 14, 16, 70
_ROOM = _WIDTH - _LEFT - 130


def draw(metrics: Sequence[Metric], medians: dict[str, dict[str, float]], *, title: str) -> str:
    """The chart as text of an SVG file. Each group is scaled to its own longest bar."""
    names = list(medians)
    groups = [metric for metric in metrics if any(metric.key in medians[name] for name in names)]
    group_height = len(names) * _BAR + _GAP
    height = _TOP + len(groups) * group_height + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="17" font-weight="bold">{escape(title)}</text>',
    ]
    x = 16
    for place, name in enumerate(names):
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="40" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="50">{escape(name)}</text>')
        x += 32 + 7 * len(name)
    y = _TOP
    for metric in groups:
        longest = max(medians[name].get(metric.key, 0.0) for name in names) or 1.0
        direction = "" if metric.higher else " (less is better)"
        parts.append(
            f'<text x="16" y="{y + _BAR}" font-weight="bold">{escape(metric.title)}</text>'
        )
        parts.append(
            f'<text x="16" y="{y + 2 * _BAR + 2}" fill="#666">'
            f"{escape(metric.unit + direction)}</text>"
        )
        for place, name in enumerate(names):
            value = medians[name].get(metric.key)
            if value is None:
                continue
            top = y + place * _BAR
            width = max(1.0, value / longest * _ROOM)
            colour = _COLOURS[place % len(_COLOURS)]
            parts.append(
                f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" '
                f'fill="{colour}"/>'
            )
            parts.append(f'<text x="{_LEFT + width + 5:.1f}" y="{top + 10}">{number(value)}</text>')
        y += group_height
    return "\n".join([*parts, "</svg>"]) + "\n"
