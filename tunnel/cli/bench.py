"""`tunnel bench`: how fast it is here, beside whatever else is installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tunnel import datapath
from tunnel.bench import chart, report
from tunnel.bench import rounds as bench_rounds
from tunnel.bench.figures import Figures, middles
from tunnel.bench.rows import METRICS, ROWS, Row, chosen
from tunnel.bench.subjects import (
    Bare,
    OpenVpn,
    Ours,
    Subject,
    WireGuardGo,
    compile_modules,
    not_installed,
    own_folders,
)
from tunnel.cli.common import EXIT_FAILED, EXIT_USAGE, complain, fail, print_json, writable
from tunnel.lab import LabError, rootless

ROUNDS, SECONDS = 3, 3.0

app = typer.Typer()


@app.command(name="bench")
def bench_command(
    peer: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PROGRAM", help="A program like wireguard-go to measure too; may be repeated."
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"How often each is measured; {ROUNDS} if not given."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=1.0, help=f"Length of each load; {SECONDS:g} if not given."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBJECT",
            help="Measure only subjects whose name has this in it; may be repeated.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="ROW,…",
            help="Measure only these: " + ", ".join(row.name for row in ROWS) + ".",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One round of one-second loads, without the rows that take long."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a bar chart (SVG) to this file.")
    ] = None,
) -> None:
    """Compare the speed of this program, wireguard-go, GotaTun, OpenVPN and the bare cable.

    Prints medians over the rounds. Compare the ratios within one run, not the figures of two runs.
    docs/bench.md explains the rows.

    Example:

        tunnel bench --quick --only native --only wireguard-go
    """
    errors = Console(stderr=True)
    length = seconds or (1.0 if quick else SECONDS)
    times = rounds or (1 if quick else ROUNDS)
    measured = _rows(rows, quick=quick)
    subjects = _subjects(peer or [], only or [])
    if plot is not None:
        writable(plot)

    def show_progress(what: str, steps: int) -> None:
        bar.update(task, description=what, advance=steps)
        # Where no bar is drawn there is a line for each step.
        if not steps and not errors.is_terminal:
            errors.print(what, markup=False, highlight=False)

    try:
        rootless.check()
        compile_modules(own_folders())
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        ) as bar:
            task = bar.add_task("", total=bench_rounds.steps(subjects, measured, times))
            result = bench_rounds.measure(
                subjects, measured, rounds=times, seconds=length, progress=show_progress
            )
    except LabError as error:
        fail(error)
    figures = result.figures
    if plot is not None:
        title = f"tunnel bench: medians of {times} rounds, both ends on this machine"
        medians = {
            name: {key: each.median for key, each in found.items()}
            for name, found in middles(figures).items()
        }
        plot.write_text(chart.draw(METRICS, medians, title=title), encoding="utf-8")
    if as_json:
        print_json(report.as_json(figures, METRICS, rounds=times, seconds=length))
    else:
        _print_table(figures, times)
    for failure in result.failures:
        complain(f"tunnel: {failure}")
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


def _rows(names: str | None, *, quick: bool) -> list[Row]:
    """The rows to measure; those whose programs are missing are named, and left out."""
    try:
        wanted = ROWS if names is None else chosen(name for name in names.split(",") if name)
    except KeyError as error:
        known = ", ".join(row.name for row in ROWS)
        fail(f"--rows {names}: unknown row {error.args[0]}; choose from {known}", EXIT_USAGE)
    if names is None and quick:
        wanted = tuple(row for row in wanted if row.is_quick)
    if shutil.which("iperf3") is None:
        fail(not_installed("iperf3"))
    return _possible([(row, f"row {row.name}: ") for row in wanted])


def _subjects(peers: list[Path], only: list[str]) -> list[Subject]:
    for path in peers:
        if shutil.which(path) is None:
            fail(f"--peer: {path} is not an executable program", EXIT_USAGE)
    there = datapath.available()
    wanted: list[Subject] = [Ours(name) for name in there]
    wanted += [Ours.unencrypted()] if "native" in there else []
    wanted += [WireGuardGo(), WireGuardGo("gotatun")]
    wanted += [*(WireGuardGo(str(path)) for path in peers), OpenVpn(), Bare()]
    # A program at a path stands for the one of its name on the PATH.
    by_name = {each.name: each for each in wanted}
    named = [
        each for each in by_name.values() if not only or any(word in each.name for word in only)
    ]
    if not named:
        fail(f"--only {' '.join(only)}: unknown name; choose from {', '.join(by_name)}", EXIT_USAGE)
    return _possible([(subject, "") for subject in named])


T = TypeVar("T", Row, Subject)


def _possible(wanted: list[tuple[T, str]]) -> list[T]:
    """Those that this machine has all for; the others are named, each after its text."""
    found = []
    for each, title in wanted:
        missing = each.missing()
        if missing is None:
            found.append(each)
        else:
            complain(f"left out: {title}{missing}")
    if not found:
        raise typer.Exit(EXIT_FAILED)
    return found


def _print_table(figures: Figures, rounds: int) -> None:
    """Figures, and below each the ratio of the first subject to it."""
    first = next(iter(figures))
    rounds_text = "1 round" if rounds == 1 else f"{rounds} rounds, ± half the quartiles' distance"
    typer.echo(f"Medians of {rounds_text}.")
    typer.echo(f"Below each: {first} ÷ the other, in the same round.\n")
    for line in report.table(figures, METRICS, width=Console().width):
        typer.echo(line)
