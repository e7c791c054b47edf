"""`tunnel pair`: both ends of a new tunnel, set up over ssh."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tunnel.cli.common import EXIT_USAGE, fail
from tunnel.cli.version import version
from tunnel.config.peers import endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.errors import TunnelError
from tunnel.log.redact import printable
from tunnel.pair.choosing import given_networks

if TYPE_CHECKING:
    from tunnel.pair.pairing import Paired, PairPlan

app = typer.Typer()


@app.command()
def pair(
    destination: Annotated[
        str | None,
        typer.Argument(metavar="[USER@]HOST", help="The other host, as ssh takes it."),
    ] = None,
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="The tunnel's name on both hosts. Default: from HOST."),
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65535, help="UDP port on both. Default: a free one."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            "--subnet",
            metavar="PREFIX",
            help="The tunnel's prefix, a /30 or larger. Default: free ones.",
        ),
    ] = None,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where HOST reaches this host; may have :PORT. Default: found out.",
        ),
    ] = "",
    far_endpoint: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where this host reaches HOST. Default: as ssh does.",
        ),
    ] = "",
    install: Annotated[
        bool,
        typer.Option("--install", help="Install this program in /opt/tunnel there, if missing."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and change nothing on either host."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, max=300, help="Seconds to wait for an answer."),
    ] = 10.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, for scripts.")] = False,
    remote: Annotated[bool, typer.Option("--remote", hidden=True)] = False,
) -> None:
    """Set up a tunnel between this host and another one, on both, over ssh.

    Chooses what is free on both hosts, makes a key on each, writes a conf on each, brings both up,
    and pings both ways. If anything fails, both hosts are restored. Private keys stay where they
    are made; public keys and a preshared key go through ssh. This needs root on both hosts, if need
    be by sudo. The other host needs this program, or --install.

    Examples:

        tunnel pair admin@office.example.org
        tunnel pair root@192.0.2.7 --name office --install
    """
    if remote:
        from tunnel.pair.agent import Agent

        try:
            Agent(version()).serve()
        except TunnelError as error:
            fail(error)
        return
    if not destination:
        fail("name the other host: tunnel pair user@host", EXIT_USAGE)
    try:
        networks = tuple(given_networks(network or (), least=4))
    except Mistake as mistake:
        fail(f"{mistake.fault}; {mistake.remedy}", EXIT_USAGE)
    for option, text in (("name", name), ("endpoint", endpoint), ("far-endpoint", far_endpoint)):
        try:
            if text:
                check_name(text) if option == "name" else endpoint_at(text, 1)
        except Mistake as mistake:
            fail(f"--{option} {mistake.fault}", EXIT_USAGE)
    from tunnel.pair.messages import PairError
    from tunnel.pair.pairing import Wishes, set_up_pair

    def agree(plan: PairPlan) -> bool:
        typer.echo(_plan_text(plan))
        if dry_run:
            return False
        may_ask = not yes and sys.stdin is not None and sys.stdin.isatty()
        return not may_ask or typer.confirm("Write this on both hosts?", default=True)

    # Whatever ends us, both hosts are put back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        done = set_up_pair(
            destination,
            Wishes(name, port or 0, networks, endpoint, far_endpoint),
            _Lines(),
            agree=agree,
            install=install,
            dry_run=dry_run,
            version=version(),
            patience=wait,
        )
    except Mistake as mistake:
        fail(f"{mistake.fault}; {mistake.remedy}")
    except PairError as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped; nothing was set up", 128 + signal.SIGINT)
    if done is not None:
        typer.echo(_done_text(done))
    elif not dry_run:
        raise typer.Exit(EXIT_USAGE)


class _Lines:
    """A line for each step: what it is, and, at its end, what came of it."""

    @contextlib.contextmanager
    def step(self, what: str, *, asks: bool = False) -> Iterator[Callable[[str], None]]:
        """A step begins, and ends with the block; its result goes to what this gives."""
        said: list[str] = []
        # Others may write to the terminal before its end: then that is a line of its own.
        typer.echo(f"{what} …", nl=asks)
        try:
            yield said.append
        except BaseException:
            said[:] = said or ["failed"]
            raise
        finally:
            words = said[-1] if said else "done"
            typer.echo(f"  {words}" if asks else f" {words}")

    def note(self, text: str) -> None:
        """Something besides."""
        typer.echo(text)


def _plan_text(plan: PairPlan) -> str:
    near, far = plan.near, plan.far
    ways = [
        f"{of} reaches {to} at {side.endpoint}"
        for of, to, side in (
            ("this host", far.end.name, far),
            (far.end.name, "this host", near),
        )
        if side.endpoint
    ]
    kept = [
        name
        for name, keeps in zip(("this host", far.end.name), plan.keepalives, strict=True)
        if keeps
    ]
    lines = [
        f"{plan.name}: {plan.address(1)} on this host, {plan.address(2)} on {far.end.name}",
        *(f"  {way}" for way in ways),
        *(f"  {each} sends a keepalive every 25 s" for each in kept),
        f"  confs: {near.situation.folder}/{plan.name}.conf here, "
        f"{printable(far.situation.folder)}/{plan.name}.conf there",
    ]
    return "\n".join(lines)


def _done_text(done: Paired) -> str:
    plan = done.plan
    at_boot = [
        f"{side.program} service install   # {where}"
        for side, where in ((plan.near, "here"), (plan.far, "there"))
        if not side.situation.has_unit
    ]
    at_boot.append(f"systemctl enable tunnel@{plan.name}   # on each host")
    return "\n".join(
        (
            f"{plan.name} is up on both hosts; its keys are in {done.paths[0]}",
            "at boot:  " + "\n          ".join(at_boot),
            f"down:     {plan.near.program} down {plan.name}   # here",
            f"          {plan.far.program} down {plan.name}   # there",
        )
    )
