"""`tunnel new`: the confs of a new tunnel, one for each of its hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from tunnel import config
from tunnel.cli.common import EXIT_USAGE, fail, in_words, write_new
from tunnel.config.files import folders
from tunnel.config.fresh import FreshHost, Shape, check_hosts, choose_networks, make_confs
from tunnel.config.peers import endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.host.in_use import networks_in_use, udp_ports_in_use
from tunnel.linux.networks import Network

app = typer.Typer()

_PORT = 51820
"""The port that WireGuard usually has. If it is taken, the next free one is chosen."""


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
        typer.Option(metavar="PREFIX", help="Its prefix, a /24 or larger. Default: free ones."),
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
        port = _free_port()
        hosts = [_host(word, port) for word in words]
        meant = shape or (Shape.PAIR if len(hosts) == 2 else Shape.HUB)
        check_hosts(hosts, meant)
        networks = _given(network) if network else choose_networks(_taken(), os.urandom)
        confs = make_confs(name, hosts, meant, networks, os.urandom)
    except Mistake as mistake:
        fail(f"{mistake.fault}; {mistake.remedy}", EXIT_USAGE)
    base = folder or Path(name)
    paths = {host: base / host / f"{name}.conf" for host in confs}
    typer.echo(f"{name}: a {meant} of {len(hosts)} hosts in {', '.join(map(str, networks))}")
    if may_ask and not typer.confirm(f"Write {len(paths)} confs below {base}?", default=True):
        raise typer.Exit(EXIT_USAGE)
    try:
        for path in paths.values():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}; nothing was written")
    write_new({paths[host]: text for host, text in confs.items()})
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


def _as_path(path: Path) -> str:
    return str(path) if path.is_absolute() else f"./{path}"


def _given(texts: Sequence[str]) -> list[Network]:
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise Mistake(
                f"--network {text}: {error}", "write a prefix such as 10.77.0.0/24"
            ) from None
        if found[-1].num_addresses < 256:
            raise Mistake(f"--network {text} is too small", "use a /24 or a larger one")
    return found


def _confs() -> list[config.TunnelConfig]:
    """The confs of this host, as far as they can be read: a tunnel that is down has one, too."""
    found = []
    for path in (path for folder in folders() for path in folder.glob("*.conf")):
        try:
            found.append(config.load(path))
        except config.ConfigErrors:
            continue
    return found


def _taken() -> list[Network]:
    try:
        found = list(networks_in_use())
    except OSError as error:
        fail(f"cannot list the routes of this host: {in_words(error)}")
    for conf in _confs():
        found += [address.network for address in conf.interface.addresses]
        found += conf.networks
    return found


def _free_port() -> int:
    taken = udp_ports_in_use() | {conf.interface.listen_port for conf in _confs()}
    return next(port for port in range(_PORT, 1 << 16) if port not in taken)
