"""`tunnel service`: tunnels as services of systemd."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from tunnel.cli.common import EXIT_USAGE, fail
from tunnel.cli.helps import PlainGroup
from tunnel.systemd import units

app = typer.Typer(
    name="service",
    cls=PlainGroup,
    help="Run tunnels as services of systemd: at boot, watched over, with few rights.",
    no_args_is_help=True,
)

Root = Annotated[
    Path,
    typer.Option(
        "--root", metavar="DIR", help="The root folder of the system to install into.", hidden=True
    ),
]
Program = Annotated[
    str | None,
    typer.Option(
        "--program", metavar="PATH", help="The command tunnel that the service runs; else this one."
    ),
]

_INTERFACE = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


@app.command()
def install(
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="DROP-IN",
            help="What the strict unit does not permit; `tunnel service show` lists them.",
        ),
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME", help="The drop-ins are for this tunnel alone."),
    ] = None,
    docker_plugin: Annotated[
        bool,
        typer.Option(
            "--docker-plugin", help="Install the units of `tunnel docker-plugin` as well."
        ),
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Install the unit of `tunnel web` as well.")
    ] = False,
    root: Root = Path("/"),
    program: Program = None,
) -> None:
    """Install the units tunnel@.service and tunnel.target, and the drop-ins asked for.

    Example:

        tunnel service install
    """
    if interface is not None and not _INTERFACE.fullmatch(interface):
        fail(f"--for {interface!r} is not the name of an interface", EXIT_USAGE)
    if interface is not None and not names:
        fail("--for says what the drop-ins are for: add --with DROP-IN", EXIT_USAGE)
    _need_root(root)
    command = (program,) if program else units.own_command()
    try:
        written = units.install(
            root,
            command,
            names=tuple(names or ()),
            interface=interface,
            docker=docker_plugin,
            web=web,
        )
    except units.ServiceError as error:
        fail(error)
    for path in written:
        typer.echo(f"wrote {path}")
    if not written:
        typer.echo("everything is installed already")
        return
    typer.echo("next, for a tunnel whose conf is /etc/tunnel/NAME.conf:")
    typer.echo("  systemctl daemon-reload")
    typer.echo(f"  systemctl enable --now tunnel@{interface or 'NAME'}")
    if docker_plugin:
        typer.echo("and for Docker's networks:")
        typer.echo("  systemctl enable --now tunnel-docker-plugin")
    if web:
        typer.echo("and for its page:")
        typer.echo(f"  tunnel web {interface or 'NAME'} --set-password")
        typer.echo(f"  systemctl enable --now tunnel-web@{interface or 'NAME'}")


@app.command()
def uninstall(root: Root = Path("/")) -> None:
    """Remove the units and drop-ins that `install` wrote. Tunnels that run go on running.

    Example:

        tunnel service uninstall
    """
    _need_root(root)
    still = units.enabled(root)
    if still:
        shown = " ".join(still)
        fail(f"started at boot: {', '.join(still)}; first: systemctl disable --now {shown}")
    try:
        removed = units.uninstall(root)
    except units.ServiceError as error:
        fail(error)
    for path in removed:
        typer.echo(f"removed {path}")
    if not removed:
        typer.echo("none of our units is installed")
        return
    typer.echo("next:")
    typer.echo("  systemctl daemon-reload")


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[DROP-IN]", help="Show the text of this drop-in.")
    ] = None,
    program: Program = None,
) -> None:
    """Show the unit as it would be installed, and the drop-ins there are.

    Example:

        tunnel service show
    """
    known = units.drop_ins()
    if name is not None:
        if name not in known:
            fail(f"no drop-in is named {name!r}; there are {', '.join(known)}", EXIT_USAGE)
        typer.echo(known[name].text, nl=False)
        return
    command = (program,) if program else units.own_command()
    typer.echo(units.render(units.UNIT, command))
    typer.echo("# Drop-ins (tunnel service install --with NAME):")
    for drop_in in known.values():
        typer.echo(f"#   {drop_in.name}: {drop_in.purpose}")


def _need_root(root: Path) -> None:
    if root == Path("/") and os.geteuid() != 0:
        fail("only root can change the system's services; run it as root (sudo)")
