"""Journeys of packets as text: one timeline for each, with the time since the step before."""

from __future__ import annotations

from collections.abc import Iterator

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
    margin = f"  {'':<7}│  {'':<13}"
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
