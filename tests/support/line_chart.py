"""A chart of lines as SVG, panels one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_COLOURS = ("#1b6ca8", "#e08e45", "#5a9367", "#b56b9d")
_WIDTH, _LEFT, _RIGHT, _TOP, _PANEL, _GAP = 900, 90, 20, 60, 150, 50

Points = Sequence[tuple[float, float]]


def draw(panels: Mapping[str, Mapping[str, Points]], *, title: str, x_title: str) -> str:
    """Each panel has a title and its lines by name; all have the same x. Each begins at 0."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    last = max(x for lines in panels.values() for points in lines.values() for x, _ in points)
    width = _WIDTH - _LEFT - _RIGHT
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="17" font-weight="bold">{escape(title)}</text>',
    ]
    for place, name in enumerate(names):
        x = _WIDTH - _RIGHT - 90 * (len(names) - place)
        parts.append(f'<rect x="{x}" y="16" width="12" height="12" fill="{_COLOURS[place]}"/>')
        parts.append(f'<text x="{x + 17}" y="26">{escape(name)}</text>')
    for number, (heading, lines) in enumerate(panels.items()):
        top = _TOP + number * (_PANEL + _GAP)
        most = max(y for points in lines.values() for _, y in points) * 1.1 or 1.0
        parts.append(f'<text x="{_LEFT}" y="{top - 6}" font-weight="bold">{escape(heading)}</text>')
        for part in (0.0, 0.5, 1.0):
            y = top + _PANEL * (1 - part)
            parts.append(
                f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{most * part:,.0f}</text>'
            )
        for place, name in enumerate(names):
            places = (
                f"{_LEFT + x / last * width:.1f},{top + _PANEL * (1 - y / most):.1f}"
                for x, y in lines.get(name, ())
            )
            parts.append(
                f'<polyline points="{" ".join(places)}" fill="none" stroke="{_COLOURS[place]}" '
                'stroke-width="1.5"/>'
            )
    bottom = height - _GAP + 20
    parts.append(f'<text x="{_LEFT}" y="{bottom}">0</text>')
    end = f'x="{_WIDTH - _RIGHT}" y="{bottom}" text-anchor="end"'
    parts.append(f"<text {end}>{last:,.0f} {escape(x_title)}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"
