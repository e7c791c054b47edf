"""`tunnel doctor`: why nothing flows, and how to fix it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.text import Text

from tunnel import config
from tunnel.cli import timeline
from tunnel.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    Json,
    conf_of_daemon,
    fail,
    interface_name,
    print_json,
    running_names,
)
from tunnel.control import run_folder
from tunnel.control.messages.changes import named
from tunnel.control.messages.sentences import some
from tunnel.doctor import (
    DEFAULT_WAIT,
    Facts,
    Finding,
    Options,
    Report,
    diagnose,
    examine_elsewhere,
    gather,
    join_inside,
)
from tunnel.log.redact import printable

app = typer.Typer()

MANY, FEW = 6, 3
"""More findings of a kind than this are summed up behind the first few."""


@app.command()
def doctor(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[CONF|NAME]", help="One tunnel; all that run if left out."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            "-a",
            metavar="ADDRESS",
            help="An address that you cannot reach through it.",
        ),
    ] = None,
    forward: Annotated[
        bool,
        typer.Option("--forward", help="This host forwards between the tunnel and others."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.5, max=300, help="Seconds to wait for answers at most."
        ),
    ] = DEFAULT_WAIT,
    as_json: Json = False,
    inside: Annotated[bool, typer.Option("--inside", hidden=True)] = False,
) -> None:
    """Find out why nothing flows: what is wrong, how that was seen, and how to fix it.

    Looks at conf, keys, clock, routes, firewall and settings, sends a few small packets through
    the tunnel and follows them. Changes nothing. Exit code 0 if nothing is wrong, 1 if something
    is.

    Examples:

        tunnel doctor office
        tunnel doctor office --address 10.77.0.9
    """
    if address is not None:
        try:
            address = str(ip_address(address))
        except ValueError:
            fail(f"--address {address}: expected an IPv4 or IPv6 address, not a name", EXIT_USAGE)
    options = Options(address=address, forward=forward, wait=wait, inside=inside)
    reports = []
    for each, conf in _meant(name):
        report = examine_elsewhere(each, conf, options)
        if report is None:
            with _shown_progress(each) as progress:
                facts: Facts = trio.run(gather, each, conf, options, progress)
                report = join_inside(diagnose(facts), facts, conf)
        reports.append(report)
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            timeline.show(Console(highlight=False), lines(report))
    if not all(report.healthy for report in reports):
        raise typer.Exit(EXIT_FAILED)


@contextlib.contextmanager
def _shown_progress(name: str) -> Iterator[Callable[[str], None]]:
    """Print what the doctor is at on a terminal's standard error, and take it away at the end."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status(_plain(f"{name}: …")) as status:
        yield lambda words: status.update(_plain(f"{name}: {words} …"))


def _meant(name: str | None) -> Iterator[tuple[str, str | None]]:
    """Interfaces and their confs; leaves if there are none."""
    running = running_names() if name is None else run_folder.running_names()
    if name is None and not running:
        fail("no tunnel is running on this host: name one, or its conf", EXIT_USAGE)
    for each in [name] if name is not None else running:
        conf = conf_of_daemon(each)
        if os.path.exists(conf):
            yield each, conf
            continue
        try:
            yield interface_name(each), os.fspath(config.find(each))
        except config.ConfigErrors as errors:
            if interface_name(each) not in running:
                fail(errors, EXIT_USAGE)
            yield interface_name(each), None


def lines(report: Report) -> Iterator[Text]:
    """A report for people. What confs and rules say is quoted: nothing acts on the terminal."""
    count = len(report.findings)
    name = _plain(report.interface, "bold")
    if count:
        yield name + Text(f": {count} thing{'' if count == 1 else 's'} wrong", "bold red")
    elif report.skipped:
        yield name + Text(": nothing wrong in what was looked at", "bold green")
    else:
        yield name + Text(": nothing wrong", "bold green")
    yield from _all_lines("✗", "red", report.findings)
    yield from _all_lines("·", "yellow", report.notes)
    if report.in_use:
        words = ", ".join(f"{what}: {value}" for what, value in report.in_use.items())
        yield _plain(f"  in use  {words}")
    for skipped in report.skipped:
        yield _plain(f"  not looked at: {skipped}", "yellow")


def _all_lines(sign: str, style: str, findings: Sequence[Finding]) -> Iterator[Text]:
    """All findings; of many of a kind, as of each of 200 peers, the first few, and who else."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.code, []).append(finding)
    for found in kinds.values():
        shown = found if len(found) <= MANY else found[:FEW]
        for finding in shown:
            yield from _finding_lines(sign, style, finding)
        if more := [finding.name or finding.peer or "" for finding in found[len(shown) :]]:
            who = f" ({some([each for each in more if each])})" if any(more) else ""
            yield _plain(f"    and {len(more)} more of the same{who}; all of them: --json", style)


def _finding_lines(sign: str, style: str, finding: Finding) -> Iterator[Text]:
    yield Text(f"  {sign} ", style) + _plain(finding.what) + Text(f"  [{finding.code}]", "dim")
    if finding.peer is not None:
        yield _plain(f"      peer   {named(finding.peer, finding.name)}")
    yield _plain(f"      seen   {finding.evidence}")
    yield Text("      fix    ") + _plain(finding.remedy, "bold")


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style)
