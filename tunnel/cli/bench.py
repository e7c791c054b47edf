"""`tunnel bench`: how fast it is here, beside whatever else is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tunnel import datapath
from tunnel.bench import bench, chart
from tunnel.bench import rounds as bench_rounds
from tunnel.bench.subjects import Bare, OpenVpn, Ours, Subject, WireGuardGo
from tunnel.cli.common import EXIT_FAILED, EXIT_USAGE, fail, writable
from tunnel.lab import LabError, rootless

app = typer.Typer()


@app.command(name="bench")
def bench_command(
    peer: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PROGRAM", help="A wireguard-go-like program to measure too; may be repeated."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often each is measured.")
    ] = 3,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="Length of each load.")
    ] = 3.0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBJECT",
            help="Measure only subjects whose name has this in it; may be repeated.",
        ),
    ] = None,
    peers: Annotated[
        bool, typer.Option(help="Measure with 100 and with 10,000 peers, and handshakes, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a bar chart (SVG) to this file.")
    ] = None,
) -> None:
    """Measure this machine: ours, wireguard-go, OpenVPN and the bare cable, in turn.

    Two hosts in network namespaces, both ends on the same cores. Medians over the rounds; the
    ratios in one run are what can be compared, not the figures of two runs. Ours is compared with
    itself, too: one that was traced with one that never was.

    Example:

        tunnel bench --rounds 3
    """
    errors = Console(stderr=True)
    subjects = _subjects(peer or [], only or [], errors)
    if plot is not None:
        writable(plot)

    def show_progress(what: str, steps: int) -> None:
        bar.update(task, description=what, advance=steps)
        # Where no bar is drawn there is a line for each subject.
        if not steps and not errors.is_terminal:
            errors.print(what, markup=False, highlight=False)

    try:
        rootless.check()
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        ) as bar:
            task = bar.add_task("", total=rounds * bench_rounds.steps(subjects, many_peers=peers))
            figures = bench_rounds.measure(
                subjects,
                rounds=rounds,
                seconds=seconds,
                many_peers=peers,
                progress=show_progress,
            )
    except LabError as error:
        typer.echo(f"tunnel: {error}", err=True)
        raise typer.Exit(1) from None
    middle = bench.medians(figures)
    if plot is not None:
        title = f"tunnel bench: medians of {rounds} rounds, both ends on this machine"
        plot.write_text(chart.draw(bench.METRICS, middle, title=title), encoding="utf-8")
    if as_json:
        report = {"rounds": rounds, "seconds": seconds, "figures": figures, "medians": middle}
        typer.echo(json.dumps(report, indent=2))
        return
    _print_table(middle)


def _subjects(peers: list[Path], only: list[str], errors: Console) -> list[Subject]:
    for path in peers:
        if shutil.which(path) is None:
            fail(f"--peer: {path} is not an executable program", EXIT_USAGE)
    wanted: list[Subject] = [Ours(name) for name in datapath.available()]
    wanted += [WireGuardGo(), *(WireGuardGo(str(path)) for path in peers), OpenVpn(), Bare()]
    named = [each for each in wanted if not only or any(word in each.name for word in only)]
    if not named:
        names = ", ".join(each.name for each in wanted)
        fail(f"--only {' '.join(only)}: unknown name; choose from {names}", EXIT_USAGE)
    chosen = []
    for subject in named:
        missing = subject.missing()
        if missing is None:
            chosen.append(subject)
        else:
            errors.print(f"left out: {missing}")
    if not chosen:
        raise typer.Exit(EXIT_FAILED)
    return chosen


def _print_table(medians: dict[str, dict[str, float]]) -> None:
    """Figures, and in brackets the ratio of the first subject to each of the others."""
    names = list(medians)
    first = names[0]
    table = Table(title=f"medians; in brackets {first} ÷ the other")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for metric in bench.METRICS:
        if all(metric.key not in figures for figures in medians.values()):
            continue
        cells = []
        for name in names:
            value, ours = medians[name].get(metric.key), medians[first].get(metric.key)
            if value is None:
                cells.append("–")
            elif name == first or not value or ours is None or metric.unit == "ratio":
                cells.append(chart.number(value))
            else:
                cells.append(f"{chart.number(value)} ({ours / value:.2f})")
        table.add_row(f"{metric.title} [{metric.unit}]", *cells)
    Console(highlight=False, width=max(100, 40 + 22 * len(names))).print(table)
