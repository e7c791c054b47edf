"""Journeys of packets as text: one timeline for each, with the time since the step before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from tunnel.trace.journey import Journey, Step

_STYLES = {"inner": "cyan", "tunnel": "magenta", "outer": "yellow"}
_ENDS = {
    "passed": ("✓", "bold green", "passed"),
    "dropped": ("✗", "bold red", "died at"),
    "lost": ("?", "bold red", "lost"),
    "waiting": ("…", "bold yellow", "still waits:"),
    "unfinished": ("…", "bold yellow", "not finished,"),
}


_MARGIN = f"  {'':<7}│  "
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
    """Where the words of a line begin: of a step, after its time."""
    for sign in (" µs  ", "same time  "):
        if "├" in plain and sign in plain:
            return plain.index(sign) + len(sign)
    return len(plain) - len(plain.lstrip(" │"))


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
    previous = journey.start if before is None else before
    layer = ""
    for number, step in enumerate(journey.steps):
        label = step.layer if step.layer != layer else ""
        layer = step.layer
        elapsed = f"+{max(0.0, step.time - previous) * 1e6:>5.0f} µs"
        # Measured once for several steps: how long each took is not known.
        yield _line(step, label, "same time" if number and step.time == previous else elapsed)
        yield from _remarks(step)
        previous = step.time


def _line(step: Step, label: str, elapsed: str) -> Text:
    style = "bold red" if step.dropped else _STYLES[step.layer]
    size = f"{step.size:>6} B" if step.size else " " * 8
    return Text.assemble(
        (f"  {label:<7}", style),
        "├─ ",
        (f"{step.place:<13}", style),
        f"{size}  {elapsed}  ",
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
