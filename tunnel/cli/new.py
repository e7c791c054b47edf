"""`tunnel new`: the confs of a new tunnel, one for each of its hosts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tunnel.cli.common import EXIT_USAGE, fail, in_words, write_new
from tunnel.config.fresh import FreshHost, Shape, check_hosts, choose_networks, make_confs
from tunnel.config.peers import endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.linux.networks import Network
from tunnel.pair.choosing import free_port, given_networks, taken_networks, taken_ports

app = typer.Typer()


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="TUNNEL", help="The name of the interface on each host.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST[=ENDPOINT]]",
            help="Each host; with =ENDPOINT, the address or name at which others reach it. "
            "The first is the hub.",
        ),
    ] = None,
    shape: Annotated[
        Shape | None,
        typer.Option(
            metavar="SHAPE", help="`pair`, `hub` or `mesh`. Default: pair for two hosts, else hub."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX", help="The tunnel's prefix, a /24 or larger. Default: free ones."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write. Default: ./TUNNEL."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, for scripts.")] = False,
) -> None:
    """Make the confs of a new tunnel: a pair, a hub with members, or a mesh.

    Chooses keys, a port, and private prefixes of IPv4 and IPv6 that overlap no network of this
    host. Writes DIR/HOST/TUNNEL.conf for each host, mode 0600, and overwrites nothing.

    Examples:

        tunnel new link paris=192.0.2.1 rome=192.0.2.2
        tunnel new office hub=vpn.example.com laptop phone
        tunnel new mesh a=192.0.2.1 b=192.0.2.2 c --shape mesh --yes
    """
    may_ask = not yes and sys.stdin is not None and sys.stdin.isatty()
    if not words and not may_ask:
        fail("name the hosts, for example: hub=vpn.example.com laptop phone", EXIT_USAGE)
    if not words:
        typer.echo("The hosts, the hub first, for example: hub=vpn.example.com laptop phone")
        words = typer.prompt("Hosts").split()
    try:
        check_name(name)
        port = free_port(taken_ports())
        hosts = [_host(word, port) for word in words]
        meant = shape or (Shape.PAIR if len(hosts) == 2 else Shape.HUB)
        check_hosts(hosts, meant)
        networks = _networks(network)
        confs = make_confs(name, hosts, meant, networks, os.urandom)
    except Mistake as mistake:
        fail(f"{mistake.fault}; {mistake.remedy}", EXIT_USAGE)
    base = folder or Path(name)
    paths = {host: base / host / f"{name}.conf" for host in confs}
    typer.echo(f"{name}: a {meant} of {len(hosts)} hosts in {', '.join(map(str, networks))}")
    if may_ask and not typer.confirm(f"Write {len(paths)} confs below {base}?", default=True):
        raise typer.Exit(EXIT_USAGE)
    with contextlib.ExitStack() as undo:
        for path in paths.values():
            _make_folder(path.parent, undo)
        write_new({paths[host]: text for host, text in confs.items()})
        undo.pop_all()
    for host in hosts:
        # With the file's name: where the folder is missing, a copy fails, and does not become it.
        there = f"/etc/tunnel/{name}.conf"
        typer.echo(f"{host.name}: copy {paths[host.name]} to {there} there; tunnel up {name}")
    if any(host.endpoint is None for host in hosts):
        hidden = next(host for host in reversed(hosts) if host.endpoint is None)
        typer.echo(f"a phone scans its conf: tunnel qr {_as_path(paths[hidden.name])}")


def _host(word: str, port: int) -> FreshHost:
    host, equals, where = word.partition("=")
    if not equals:
        return FreshHost(host)
    try:
        return FreshHost(host, endpoint_at(where, port))
    except Mistake as mistake:
        raise Mistake(f"{word}: the endpoint {mistake.fault}", mistake.remedy) from None


def _networks(given: list[str] | None) -> Sequence[Network]:
    if given:
        return given_networks(given, least=256)
    try:
        return choose_networks(taken_networks(), os.urandom)
    except OSError as error:
        fail(f"cannot list the routes of this host: {in_words(error)}")


def _as_path(path: Path) -> str:
    return str(path) if path.is_absolute() else f"./{path}"


def _make_folder(folder: Path, undo: contextlib.ExitStack) -> None:
    """Make a folder and those above it; `undo` removes those that were made."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, undo)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        fail(f"cannot write {folder}: {error.strerror}; nothing was written")
    undo.callback(folder.rmdir)
