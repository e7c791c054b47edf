"""Journeys as a picture (SVG) for a slide: one column for each, inner packets always on top.

What goes into the tunnel is read downwards, what comes out of it upwards; so a packet on its way
from one host to another is read like the letter U, with the wire at the bottom.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from tunnel.trace.journey import READ, Journey, Layer, Step, elapsed, join_hosts

MAX_COLUMNS = 8
"""Journeys drawn; of more the first ones."""

WIDTH, GAP, MARGIN = 380, 50, 24
PADDING, LINE, ARROW = 10, 17, 18
HEAD, FOOT = 96, 46
_WRAP = 52

_LAYERS: Final[tuple[Layer, ...]] = ("inner", "tunnel", "outer")
_COLOURS = {
    "inner": ("#e3f2fd", "#1565c0"),
    "tunnel": ("#f3e5f5", "#6a1b9a"),
    "outer": ("#fff8e1", "#b26a00"),
    "dropped": ("#ffebee", "#c62828"),
}
_BANDS = {
    "inner": "inner packet, IP stack",
    "tunnel": "tunnel's daemon",
    "outer": "outer packet, IP stack",
}
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#455a64"/></marker></defs>'
)
_ENDS = {
    "passed": "✓ passed",
    "dropped": "✗ died at",
    "lost": "? lost",
    "waiting": "… waits:",
    "unfinished": "… not finished,",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """A step with its lines of text and its height."""

    step: Step
    elapsed: str
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        return 2 * PADDING + LINE * (1 + len(self.lines)) - 4


@dataclass(frozen=True, slots=True)
class _Column:
    """A journey as boxes in the order of time, and where its left edge is."""

    journey: Journey
    boxes: tuple[_Box, ...]
    x: int

    @property
    def upwards(self) -> bool:
        return self.journey.direction == "in"

    def section(self, layer: Layer) -> list[_Box]:
        """The boxes of one layer, from top to bottom."""
        boxes = [box for box in self.boxes if box.step.layer == layer]
        return boxes[::-1] if self.upwards else boxes

    def height(self, layer: Layer) -> int:
        return sum(box.height + ARROW for box in self.section(layer))


def draw(journeys: Sequence[Journey], title: str = "The way of a packet") -> str:
    """The picture of `journeys`, those of one packet on several hosts beside each other."""
    columns: list[_Column] = []
    wires: list[tuple[_Column, _Column]] = []
    for chain in join_hosts(list(journeys)):
        before: _Column | None = None
        for journey in (part for whole in chain.journeys for part in _parts(whole)):
            if len(columns) == MAX_COLUMNS:
                break
            column = _column(journey, before, MARGIN + len(columns) * (WIDTH + GAP))
            columns.append(column)
            if before is not None:
                wires.append((before, column))
            before = column
    heights = {
        layer: max((column.height(layer) for column in columns), default=0) for layer in _LAYERS
    }
    tops, y = {}, HEAD
    for layer in _LAYERS:
        tops[layer] = y
        y += heights[layer] + (LINE + 2 * PADDING if heights[layer] else 0)
    width = MARGIN * 2 + len(columns) * (WIDTH + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + FOOT}" '
        f'viewBox="0 0 {width} {y + FOOT}" font-family="Helvetica, Arial, sans-serif">',
        _TIP,
        f'<rect width="{width}" height="{y + FOOT}" fill="white"/>',
        _text(MARGIN, 30, title, size=20, weight="bold"),
    ]
    for layer in _LAYERS:
        if heights[layer]:
            parts += _band(layer, tops[layer], heights[layer] + LINE + PADDING, width)
    for column in columns:
        parts += _draw_column(column, tops, heights, y)
    for left, right in wires:
        # From host to host by the wire below, within one host by its IP stack above.
        same = left.journey.host == right.journey.host
        height = tops["inner"] + 3 * LINE if same else y - 14 - ARROW - 2 * LINE
        parts.append(_arrow(left.x + WIDTH, height, right.x, height))
    return "\n".join([*parts, "</svg>\n"])


def _parts(journey: Journey) -> list[Journey]:
    """The way out of the tunnel and the way into it again, if it is both."""
    turn = next((n for n, step in enumerate(journey.steps) if step.place == READ), 0)
    if journey.direction != "through" or not turn:
        return [journey]
    first, second = journey.steps[:turn], journey.steps[turn:]
    return [
        replace(journey, direction="in", steps=first, outcome="passed", death=None),
        replace(journey, direction="out", steps=second),
    ]


def _column(journey: Journey, before: _Column | None, x: int) -> _Column:
    times = elapsed(journey, None if before is None else before.journey.steps[-1].time)
    boxes = tuple(
        _Box(step, "" if seconds is None else f"+{seconds * 1e6:.0f} µs", tuple(_lines(step)))
        for step, seconds in zip(journey.steps, times, strict=True)
    )
    return _Column(journey, boxes, x)


def _lines(step: Step) -> Iterator[str]:
    yield from textwrap.wrap(step.what, _WRAP)
    if step.nat is not None:
        yield from textwrap.wrap(f"NAT: {step.nat}", _WRAP)
    for decision in step.decisions:
        if decision.handle is not None or decision.is_drop:
            yield from textwrap.wrap(str(decision), _WRAP)


def _band(layer: Layer, top: int, height: int, width: int) -> list[str]:
    fill, stroke = _COLOURS[layer]
    return [
        f'<rect x="8" y="{top}" width="{width - 16}" height="{height}" rx="10" fill="{fill}" '
        f'opacity="0.6"/>',
        _text(MARGIN, top + LINE, _BANDS[layer], size=12, colour=stroke, weight="bold"),
    ]


def _draw_column(
    column: _Column, tops: dict[Layer, int], heights: dict[Layer, int], bottom: int
) -> Iterator[str]:
    journey, x = column.journey, column.x
    host = f"host {journey.host}: " if journey.host else ""
    heading = f"{host}{'out of' if column.upwards else 'into'} the tunnel"
    yield _text(x, 56, heading, size=15, weight="bold")
    yield _text(x, 74, textwrap.shorten(f"{journey.packet}", 58), size=12)
    yield _text(x, 90, journey.flow, size=12, colour="#455a64")
    placed: list[tuple[int, _Box]] = []
    for layer in _LAYERS:
        # Boxes hang from the top of their band, but for the outer ones, which stand on the wire.
        y = tops[layer] + LINE + PADDING
        if layer == "outer":
            y += heights[layer] - column.height(layer)
        for box in column.section(layer):
            placed.append((y, box))
            y += box.height + ARROW
    middle = x + WIDTH // 2
    for (above, box), (below, _) in pairwise(placed):
        start, end = above + box.height, below
        if column.upwards:
            start, end = end, start
        yield _arrow(middle, start, middle, end)
    for y, box in placed:
        yield from _draw_box(box, x, y)
    outcome = f"{_ENDS[journey.outcome]} {journey.death or ''}"
    colour = "#2e7d32" if journey.outcome == "passed" else _COLOURS["dropped"][1]
    for number, line in enumerate(textwrap.wrap(outcome, 62)[:2]):
        yield _text(x, bottom + 14 + number * 15, line, size=12, colour=colour, weight="bold")


def _draw_box(box: _Box, x: int, y: int) -> Iterator[str]:
    step = box.step
    _, stroke = _COLOURS["dropped" if step.dropped else step.layer]
    yield (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{box.height}" rx="6" fill="white" '
        f'stroke="{stroke}" stroke-width="{2.5 if step.dropped else 1.2}"/>'
    )
    baseline = y + PADDING + 11
    yield _text(x + PADDING, baseline, step.place, size=14, colour=stroke, weight="bold")
    facts = [f"{step.size} bytes"] if step.size else []
    facts.append(box.elapsed)
    yield _text(
        x + WIDTH - PADDING, baseline, " · ".join(facts), size=12, colour="#455a64", anchor="end"
    )
    for number, line in enumerate(box.lines, start=1):
        yield _text(x + PADDING, baseline + number * LINE, line, size=12)


def _arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#455a64" stroke-width="1.6" '
        f'marker-end="url(#tip)"/>'
    )


def _text(
    x: int,
    y: int,
    text: str,
    *,
    size: int,
    colour: str = "#212121",
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
