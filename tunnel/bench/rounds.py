"""The rounds of a benchmark: row by row, each subject in turn, all of them up side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tunnel.bench.bench import Bench, joined
from tunnel.bench.figures import Figures
from tunnel.bench.rows import Row
from tunnel.bench.subjects import Subject
from tunnel.lab.errors import LabError


@dataclass
class Measured:
    """What was measured, and what could not be: a line for each, with its reason.

    A row that failed for a subject is without figures there, so that all others have one number
    for each round.
    """

    figures: Figures
    failures: list[str] = field(default_factory=list)


def steps(subjects: Sequence[Subject], rows: Sequence[Row], rounds: int) -> int:
    """How many steps `measure` reports."""
    return rounds * sum(1 + sum(row.fits(each) for row in rows) for each in subjects)


def measure(
    subjects: Sequence[Subject],
    rows: Sequence[Row],
    *,
    rounds: int,
    seconds: float,
    progress: Callable[[str, int], None] = lambda what, steps: None,
) -> Measured:
    """Every row of every subject, round by round; the subject that is first changes.

    What else the machine does meets the subjects of a row alike, since they are measured within
    seconds. `seconds` is the length of each load. `progress` is called with what is measured, and
    with how many of `steps` are done.
    """
    result = Measured({each.name: {} for each in subjects})
    broken: set[tuple[str, str]] = set()
    for number in range(rounds):
        order = [*subjects[number % len(subjects) :], *subjects[: number % len(subjects)]]
        with ExitStack() as stack:
            benches: list[Bench] = []
            for subject in order:
                title = f"round {number + 1} of {rounds}: {subject.name}"
                progress(title, 0)
                bench = stack.enter_context(joined(copy.copy(subject), seconds))
                bench.begin()
                benches.append(bench)
                progress(title, 1)
            for row, bench in _turns(rows, benches):
                name = bench.subject.name
                title = f"round {number + 1} of {rounds}: {row.name}, {name}"
                progress(title, 0)
                if (row.name, name) not in broken:
                    try:
                        found = row.measure(bench)
                    except LabError as error:
                        broken.add((row.name, name))
                        result.failures.append(f"{row.name}, {name}: {error}")
                        for metric in row.metrics:
                            result.figures[name].pop(metric.key, None)
                    else:
                        for key, value in found.items():
                            result.figures[name].setdefault(key, []).append(value)
                progress(title, 1)
    return result


def _turns(rows: Sequence[Row], benches: Sequence[Bench]) -> Iterator[tuple[Row, Bench]]:
    for row in rows:
        for bench in benches:
            if row.fits(bench.subject):
                yield row, bench
