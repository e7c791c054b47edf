"""Whether this tree is slower than another commit: `make bench-check BASE=commit`.

    python -m tests.support.bench_check COMMIT --rows tcp,idle --rounds 5

The commit is checked out and set up in a folder of its own, which is removed at the end. Both
are measured by this tree's benchmark, row by row and round by round. A figure that is clearly worse
than the rounds differ by is measured a second time, and counts if it is worse again. Exit code 0
if none is, 1 if one is, 2 if it could not be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from tunnel import datapath
from tunnel.bench import report, rounds
from tunnel.bench.figures import Figures, Metric, is_clearly_worse, ratio
from tunnel.bench.rows import Row, chosen
from tunnel.bench.subjects import Ours
from tunnel.lab.errors import LabError

ROOT = Path(__file__).parents[2]
MARGIN = 0.03
"""A part of a figure that no one would notice."""
NEW, BASE = "this tree", "base"
DEFAULT_ROWS = "start,idle,tcp,tcp8,loaded,udp1300,udp64,steady1300,steady64,memory,gateway"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, and say by the exit code whether one is worse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("commit", help="what to compare this tree with")
    parser.add_argument("--rows", default=DEFAULT_ROWS, help="comma-separated; see docs/bench.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each load")
    parser.add_argument("--datapath", choices=datapath.available(), help="default: the first")
    options = parser.parse_args(arguments)
    try:
        rows = chosen(options.rows.split(","))
    except KeyError as error:
        parser.error(f"--rows: unknown row {error.args[0]}")
    if options.rounds < 2:
        parser.error("--rounds: the rounds are compared with each other: 2 or more")
    kind = options.datapath or datapath.available()[0]
    try:
        with checked_out(options.commit) as command:
            subjects = [Ours(kind, label=NEW), Ours(kind, label=BASE, command=command)]
            return compare(subjects, rows, options.rounds, options.seconds)
    except (LabError, subprocess.CalledProcessError) as error:
        say(f"not measured: {error}")
        return 2


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[tuple[str, ...]]:
    """The command `tunnel` of that commit, set up in a worktree of its own."""
    with tempfile.TemporaryDirectory(prefix="tunnel-base-") as folder:
        tree = Path(folder, "tree")
        say(f"setting up {commit} (a minute or a few)")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            subprocess.run(["make", "--silent", "-C", str(tree), "setup"], check=True)
            # By its script: with -m the folder that this was called in would come first.
            yield (str(tree / ".venv/bin/tunnel"),)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def compare(subjects: Sequence[Ours], rows: Sequence[Row], times: int, seconds: float) -> int:
    """The exit code, after all that is worth printing."""
    measured = rounds.measure(subjects, rows, rounds=times, seconds=seconds, progress=progress)
    failures = [*measured.failures]
    say_table(measured.figures, rows)
    suspects = worse(measured.figures, rows)
    if suspects:
        say("worse, to be confirmed: " + ", ".join(metric.title for metric in suspects))
        again = [row for row in rows if set(row.metrics) & set(suspects)]
        measured = rounds.measure(subjects, again, rounds=times, seconds=seconds, progress=progress)
        failures += measured.failures
        say_table(measured.figures, again)
        suspects = [metric for metric in worse(measured.figures, again) if metric in suspects]
    for metric in suspects:
        say(f"WORSE: {metric.title}")
    for failure in failures:
        say(f"not measured: {failure}")
    if failures:
        return 2
    return 1 if suspects else 0


def worse(figures: Figures, rows: Sequence[Row]) -> list[Metric]:
    """The metrics in which this tree is clearly worse."""
    new, base = figures[NEW], figures[BASE]
    return [
        metric
        for row in rows
        for metric in row.metrics
        if is_clearly_worse(
            metric, new.get(metric.key, ()), base.get(metric.key, ()), margin=MARGIN
        )
    ]


def say_table(figures: Figures, rows: Sequence[Row]) -> None:
    """Each figure of both, and the ratio of this tree to the base with its spread."""
    say(f"\n{'':44}{NEW:>12}{BASE:>10}  ratio")
    for metric in (metric for row in rows for metric in row.metrics):
        pair = [figures[name].get(metric.key, []) for name in (NEW, BASE)]
        quotient = ratio(*pair)
        if quotient is None:
            continue
        cells = [report.number(median(values)) for values in pair]
        spread = "" if quotient.spread is None else f" ±{quotient.spread:.0%}"
        title = f"{metric.title}, {metric.unit}"
        say(f"{title[:44]:44}{cells[0]:>12}{cells[1]:>10}  {quotient.median:.3f}{spread}")


def progress(what: str, steps: int) -> None:
    """A line for each step that begins."""
    if not steps:
        sys.stderr.write(f"{what}\n")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
