"""Journeys of packets as text: one timeline for each, with the time since the step before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from tunnel.trace.journey import Journey, Step, elapsed

_STYLES = {"inner": "cyan", "tunnel": "magenta", "outer": "yellow"}
_ENDS = {
    "passed": ("✓", "bold green", "passed"),
    "dropped": ("✗", "bold red", "died at"),
    "lost": ("?", "bold red", "lost"),
    "waiting": ("…", "bold yellow", "still waits:"),
    "unfinished": ("…", "bold yellow", "not finished,"),
}


_MARGIN = f"  {'':<7}│  "
_WORDS = len(f"  {'':<7}├─ {'':<13}{'':>8}  {'':>9}  ")
"""The column in which the words of a step begin."""

_LABEL = re.compile(r"[ │]*(?:[✗·] +|(?<= )[a-z]+(?: [a-z]+)? {2,})?")
"""What stands before the words of a line: `  ✗ `, or `      seen   `."""

_NARROW = 20
"""Columns that are left for words at the least."""


def show(console: Console, lines: Iterable[Text]) -> None:
    """Print lines in the width of the terminal or of COLUMNS; else each whole, for programs."""
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else None
    for line in lines:
        for part in _folded(console, line, width):
            console.print(part, soft_wrap=True)


def _folded(console: Console, line: Text, width: int | None) -> Iterator[Text]:
    """A line in several, those after the first below its words."""
    if width is None or line.cell_len <= width:
        yield line
        return
    below = min(_indent(line.plain), width - _NARROW)
    margin = _MARGIN if "├" in line.plain or "│" in line.plain else ""
    head = line[:below]
    for part in line[below:].wrap(console, width - below):
        yield Text.assemble(head, part)
        head = Text(margin.ljust(below))


def _indent(plain: str) -> int:
    """Where the words of a line begin: of a step after its time, of another after its label."""
    if "├" in plain:
        return _WORDS
    found = _LABEL.match(plain)
    assert found is not None
    return found.end()


def title(journey: Journey, number: int) -> Text:
    """What the packet is, and who speaks to whom."""
    where = f" on {journey.host}" if journey.host else ""
    way = {"out": "into the tunnel", "in": "out of the tunnel", "through": "through the tunnel"}
    return Text.assemble(
        (f"{number}  {journey.packet}", "bold"),
        f"  {journey.flow}, {way[journey.direction]}{where}",
    )


def lines(journey: Journey) -> Iterator[Text]:
    """The steps, one a line, and how it ended."""
    yield from step_lines(journey)
    yield end(journey)


def step_lines(journey: Journey, *, before: float | None = None) -> Iterator[Text]:
    """The steps alone. `before` is the time of the last step on another host."""
    layer = ""
    for step, seconds in zip(journey.steps, elapsed(journey, before), strict=True):
        label = step.layer if step.layer != layer else ""
        layer = step.layer
        yield _line(step, label, seconds)
        yield from _remarks(step)


def _line(step: Step, label: str, seconds: float | None) -> Text:
    style = "bold red" if step.dropped else _STYLES[step.layer]
    since = " " * 9 if seconds is None else f"+{seconds * 1e6:>5.0f} µs"
    size = f"{step.size:>6} B" if step.size else " " * 8
    return Text.assemble(
        (f"  {label:<7}", style),
        "├─ ",
        (f"{step.place:<13}", style),
        f"{size}  {since}  ",
        (step.what, "bold red" if step.dropped else ""),
    )


def _remarks(step: Step) -> Iterator[Text]:
    """NAT, and rules: those that gave a verdict, and policies only if they drop."""
    margin = f"{_MARGIN}{'':<13}"
    if step.nat is not None:
        yield Text.assemble(margin, ("NAT: ", "bold"), step.nat)
    for decision in step.decisions:
        if decision.handle is not None or decision.is_drop:
            yield Text.assemble(margin, (str(decision), "red" if decision.is_drop else "dim"))


def end(journey: Journey) -> Text:
    """How it ended: passed, or where it died and by what."""
    sign, style, word = _ENDS[journey.outcome]
    elapsed = (journey.steps[-1].time - journey.start) * 1e6
    rest = f" in {elapsed:.0f} µs" if journey.death is None else f" {journey.death}"
    return Text.assemble(f"  {'':<7}", (f"{sign}  {word}", style), rest)
