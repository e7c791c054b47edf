"""What each fault has cost: properties of tests, and the table of them at the end of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.support.streams import Recovery

PROPERTY = "fault"
"""The property that a test of a fault has, once for each thing it measured."""


@dataclass(frozen=True)
class Figure:
    """One measurement: `what` names the fault, `seconds` is None if there is no time."""

    what: str
    seconds: float | None
    lost: str

    @classmethod
    def read(cls, text: str) -> Figure:
        """What `str` made."""
        what, seconds, lost = text.split("|")
        return cls(what, float(seconds) if seconds else None, lost)

    def __str__(self) -> str:
        return f"{self.what}|{'' if self.seconds is None else f'{self.seconds:.6f}'}|{self.lost}"

    @property
    def time(self) -> str:
        """For a table: in milliseconds up to a second."""
        if self.seconds is None:
            return "–"
        return f"{self.seconds * 1e3:.0f} ms" if self.seconds < 1 else f"{self.seconds:.1f} s"


class Figures:
    """Notes what a test has measured."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note

    def recovery(self, what: str, found: Recovery) -> None:
        """Of a stream."""
        self.note(what, found.seconds, f"{found.lost} of {found.sent}")

    def note(self, what: str, seconds: float | None, lost: str = "–") -> None:
        """Of anything else."""
        self._note(PROPERTY, str(Figure(what, seconds, lost)))


def figures_of(properties: Iterable[tuple[str, object]]) -> list[Figure]:
    """Those that a test has noted."""
    return [Figure.read(str(value)) for name, value in properties if name == PROPERTY]


def table(properties: Iterable[tuple[str, object]]) -> list[str]:
    """The lines of the table of all that were noted."""
    found = sorted(figures_of(properties), key=lambda figure: figure.what)
    if not found:
        return []
    width = max(len(figure.what) for figure in found)
    lines = [f"{'fault'.ljust(width)}  {'recovery':>9}  lost"]
    lines += [f"{figure.what.ljust(width)}  {figure.time:>9}  {figure.lost}" for figure in found]
    return lines
