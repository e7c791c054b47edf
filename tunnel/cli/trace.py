"""`tunnel trace`: the way of real packets through both crossings, as it was measured."""

from __future__ import annotations

import itertools
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import trio
import typer
from rich.console import Console
from rich.text import Text

from tunnel.cli import timeline
from tunnel.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    Json,
    complain,
    fail,
    interface_name,
    print_json,
    refusals_printed,
    writable,
)
from tunnel.cli.helps import PlainCommand
from tunnel.control import run_folder
from tunnel.control.json_protocol import ControlError
from tunnel.errors import unwrapped
from tunnel.packet.filter import EXAMPLES, WORDS, Filter, FilterError
from tunnel.trace import diagram
from tunnel.trace.journey import Journey
from tunnel.trace.session import Result, TraceRequest, TraceSession
from tunnel.trace.trace_table import TraceTableError

app = typer.Typer()

COMMAND = "command"
DEFAULT_COUNT = 20
DEFAULT_SECONDS = 60.0
MAX_COUNT = 10_000
MAX_SECONDS = 86_400.0
_SIGNALLED = 128
"""Exit codes above name, as a shell's do, the signal that ended a command."""


class _WithCommand(PlainCommand):
    """Keeps what follows `--` apart from the arguments before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[COMMAND] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


@app.command(cls=_WithCommand)
def trace(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [FILTER] [-- COMMAND]",
            help=f"The tunnel, if several run; which packets ({EXAMPLES}); what to run meanwhile.",
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "--count", "-c", metavar="N", min=1, max=MAX_COUNT, help="Trace so many packets."
        ),
    ] = DEFAULT_COUNT,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=MAX_SECONDS, help="Trace for this time at the latest."
        ),
    ] = DEFAULT_SECONDS,
    as_json: Json = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the way to this file, too.")
    ] = None,
) -> None:
    """Follow packets through the IP stack, the tunnel and the IP stack again, step by step.

    Every step was measured: the kernel reports each rule a packet meets, the tunnel's daemon what
    it does with it. A packet that dies is shown with the table, chain and rule that dropped it.
    Nothing of it stays behind, whatever ends it. COMMAND runs to its own end, traced or not, and
    its exit code is ours. Without COMMAND it is 1 if no packet was seen, or if the tunnel went down
    meanwhile.

    Example:

        tunnel trace office -- ping -c 1 10.77.0.1
    """
    name, wanted = _read(words or [])
    command: list[str] = ctx.meta.get(COMMAND, [])
    if svg is not None:
        writable(svg)
    console = Console(highlight=False)
    journeys: list[Journey] = []

    numbers = itertools.count(1)

    def report(journey: Journey) -> None:
        if as_json or svg is not None:
            journeys.append(journey)
        if not as_json:
            lines = (timeline.title(journey, next(numbers)), *timeline.lines(journey), Text())
            timeline.show(console, lines)

    output = sys.stderr.fileno() if as_json else None
    session = TraceSession(
        TraceRequest(name, wanted, count, seconds, command, output),
        report,
        lambda: _say_ready(name),
        lambda text: complain(f"tunnel: {text}"),
    )
    try:
        with refusals_printed(), unwrapped(OSError, TraceTableError, ControlError):
            result = trio.run(_run, session)
    except (OSError, TraceTableError) as error:
        fail(error)
    if as_json:
        print_json(_report(name, wanted, journeys, result))
    if result.holes:
        complain("tunnel: events were lost because too many came at once: steps are missing")
    if result.left_out:
        complain(f"tunnel: {result.left_out} handshakes and unread datagrams more were left out")
    if svg is not None and journeys:
        if len(journeys) > diagram.MAX_COLUMNS:
            complain(
                f"tunnel: {svg} shows the first {diagram.MAX_COLUMNS} of {len(journeys)} packets"
            )
        try:
            svg.write_text(diagram.draw(journeys), encoding="utf-8")
        except OSError as error:
            fail(error)
    if result.cut is not None:
        complain(f"tunnel: {result.cut}")
    if not result.packets:
        complain(f"tunnel: no packet of {wanted.text or 'the tunnel'} was seen")
    if command and result.status is not None:
        raise typer.Exit(result.status if result.status >= 0 else _SIGNALLED - result.status)
    if result.cut is not None or not result.packets:
        raise typer.Exit(EXIT_FAILED)


def _say_ready(name: str) -> None:
    """Progress, for people and for tests; programs read standard output."""
    typer.echo(f"tracing {name}", err=True)


class TraceReport(TypedDict):
    """What a trace saw. `complete` is false if some of it may be missing, and `left_out` how many
    handshakes and unread datagrams were not shown. `cut` says why it ended early. `command_status`
    is that of COMMAND, negative for a signal.
    """

    interface: str
    filter: str
    complete: bool
    left_out: int
    cut: str | None
    command_status: int | None
    journeys: list[Journey]


def _report(name: str, wanted: Filter, journeys: list[Journey], result: Result) -> TraceReport:
    return {
        "interface": name,
        "filter": wanted.text,
        "complete": not result.holes,
        "left_out": result.left_out,
        "cut": result.cut,
        "command_status": result.status,
        "journeys": journeys,
    }


def _read(words: list[str]) -> tuple[str, Filter]:
    """The interface and the filter that the words stand for; leaves if there is no telling."""
    running = run_folder.running_names()
    if words and (words[0] not in WORDS or words[0] in running):
        if words[0] not in running and len(words) > 1 and shutil.which(words[0]):
            fail(
                f"no tunnel named {words[0]} is running; to run it as a command, put -- in front: "
                f"tunnel trace -- {shlex.join(words)}",
                EXIT_USAGE,
            )
        name, rest = interface_name(words[0]), words[1:]
    elif len(running) == 1:
        name, rest = running[0], words
    else:
        known = ", ".join(running)
        fail(
            f"which one? These tunnels are running: {known}" if running else "no tunnel is running",
            EXIT_USAGE,
        )
    try:
        return name, Filter.parse(" ".join(rest))
    except FilterError as error:
        fail(error, EXIT_USAGE)


async def _run(session: TraceSession) -> Result:
    """The session, ended in order by ^C and SIGTERM."""
    async with trio.open_nursery() as nursery:

        async def follow_signals() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as caught:
                async for number in caught:
                    # At a terminal the command hears ^C itself.
                    session.stop(command=number != signal.SIGINT)

        nursery.start_soon(follow_signals)
        result = await session.run()
        nursery.cancel_scope.cancel()
    return result
