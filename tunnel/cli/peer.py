"""`tunnel peer`: the peers of a conf, in the file and in the tunnel that runs from it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from tunnel import config
from tunnel.cli.common import (
    EXIT_USAGE,
    Json,
    Name,
    complain,
    conf_of_running,
    fail,
    need_folder_of,
    print_json,
    warn_if_others_can_read,
)
from tunnel.cli.helps import PlainGroup
from tunnel.config.expiry import expiry_from, expiry_text
from tunnel.config.peers import ListedPeer, NewPeer, PeerBook
from tunnel.config.problems import Mistake
from tunnel.control.applying import NOT_RUNNING, OTHER_CONF, NotAppliedError, apply_conf
from tunnel.linux.networks import Network, read_network
from tunnel.log.redact import printable

app = typer.Typer(
    name="peer",
    cls=PlainGroup,
    help="Add, remove, rename and disable peers of a conf.\n\n"
    "Comments and order of the conf stay as they are. A tunnel that runs from the conf is\n"
    "reloaded, and no packet of its other peers is lost.",
    no_args_is_help=True,
)

Peer = Annotated[
    str,
    typer.Argument(metavar="PEER", help="The friendly_name, public key or address of the peer."),
]
NewName = Annotated[str, typer.Argument(metavar="NEW-NAME", help="The name of the peer.")]


@app.command()
def add(
    conf: Name,
    name: NewName,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Where the peer reaches this host. Stored as a comment in the conf.",
        ),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Its address. Default: the next free ones."),
    ] = None,
    allowed_ips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="AllowedIPs in its conf. Default: the networks of this tunnel.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX", help="Leave this network out of these AllowedIPs."),
    ] = None,
    dns: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="A name server in its conf.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When it loses access: `12h`, `7d`, or 2026-12-31T23:59:59Z."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write its conf to a new file, mode 0600."),
    ] = None,
    as_qr: Annotated[
        bool, typer.Option("--qr", help="Draw its conf as a QR code, for a phone.")
    ] = False,
) -> None:
    """Add a peer with new keys, and print the conf for it.

    The printed conf has the peer's private key, which is stored nowhere else.

    Examples:

        tunnel peer add office laptop --endpoint vpn.example.com
        tunnel peer add office phone --qr --expires 7d
        tunnel peer add office tablet --output tablet.conf \\
            --allowed-ips 0.0.0.0/0 --exclude 192.168.1.0/24
    """
    if as_qr and output is not None:
        fail("--qr and --output cannot be combined", EXIT_USAGE)
    new = NewPeer(
        name,
        endpoint,
        addresses=_prefixes(address or (), "--address"),
        reach=_prefixes(allowed_ips or (), "--allowed-ips"),
        excluded=_prefixes(exclude or (), "--exclude"),
        dns=dns or (),
        expires=None if expires is None else _time(expires, "--expires"),
    )
    with _mistakes_printed():
        book = _opened(conf)
        theirs = book.add(new, os.urandom)
        if output is None:
            # Its key is nowhere else: what cannot be printed is not added.
            with _undone_is_said(), book.written():
                _print(theirs, as_qr=as_qr)
        else:
            with _written(output, config.dump(theirs)):
                book.write()
    own = ", ".join(map(str, book.peers[-1].config.networks))
    _reload(book, f"added {printable(name)} as {own}")


@app.command("list")
def list_peers(conf: Name, as_json: Json = False) -> None:
    """List the peers of a conf, disabled ones included.

    Example:

        tunnel peer list office
    """
    with _mistakes_printed():
        book = _opened(conf)
    if as_json:
        print_json([_as_json(peer) for peer in book.peers])
        return
    width = max((len(printable(peer.name)) for peer in book.peers), default=0)
    for peer in book.peers:
        networks = ", ".join(map(str, peer.config.networks)) or "(none)"
        line = f"{printable(peer.name):<{width}}  {networks}"
        if peer.config.expires is not None:
            verb = "expires" if peer.config.expires > time.time() else "expired"
            line += f"  ({verb} {expiry_text(peer.config.expires)})"
        typer.echo(f"{line}  (disabled)" if peer.is_disabled else line)
    if not book.peers:
        typer.echo(f"{book.path} has no peers")


@app.command()
def remove(conf: Name, peer: Peer) -> None:
    """Remove a peer from a conf.

    Example:

        tunnel peer remove office laptop
    """
    with _edited(conf, peer) as (book, found):
        book.remove(found)
    _reload(book, f"removed {printable(found.name)}")


@app.command()
def rename(conf: Name, peer: Peer, name: NewName) -> None:
    """Rename a peer: change the comment `# friendly_name = …` in its section.

    Example:

        tunnel peer rename office laptop "Ann's laptop"
    """
    with _edited(conf, peer) as (book, found):
        book.rename(found, name)
    _reload(book, f"{printable(found.name)} is named {printable(name)}")


@app.command()
def disable(conf: Name, peer: Peer) -> None:
    """Remove a peer from the tunnel, but keep its lines in the conf as comments.

    Example:

        tunnel peer disable office laptop
    """
    with _edited(conf, peer) as (book, found):
        if found.is_disabled:
            fail(f"{printable(found.name)} is disabled already")
        book.disable(found)
    _reload(book, f"disabled {printable(found.name)}")


@app.command()
def enable(conf: Name, peer: Peer) -> None:
    """Enable a peer that was disabled.

    Example:

        tunnel peer enable office laptop
    """
    with _edited(conf, peer) as (book, found):
        if not found.is_disabled:
            fail(f"{printable(found.name)} is not disabled")
        book.enable(found)
    _reload(book, f"enabled {printable(found.name)}")


@app.command()
def expire(
    conf: Name,
    peer: Peer,
    until: Annotated[
        str,
        typer.Argument(metavar="TIME", help="`12h`, `7d`, 2026-12-31T23:59:59Z, or `never`."),
    ],
) -> None:
    """Set when a peer loses access.

    Example:

        tunnel peer expire office laptop 7d
    """
    at = None if until == "never" else _time(until, "TIME")
    with _edited(conf, peer) as (book, found):
        book.expire(found, at)
    when = "never expires" if at is None else f"expires at {expiry_text(at)}"
    _reload(book, f"{printable(found.name)} {when}")


def _prefixes(texts: Sequence[str], option: str) -> tuple[Network, ...]:
    """The networks of an option that may be repeated, and may have several, separated by commas."""
    found = []
    for text in (part.strip() for each in texts for part in each.split(",")):
        try:
            found.append(read_network(text))
        except ValueError as error:
            fail(f"{option} {text}: {error}; write a network such as 192.168.1.0/24", EXIT_USAGE)
    return tuple(found)


def _time(text: str, option: str) -> float:
    try:
        return expiry_from(text, time.time())
    except Mistake as mistake:
        fail(f"{option} {mistake.fault}; {mistake.remedy}", EXIT_USAGE)


def _opened(conf: str) -> PeerBook:
    return PeerBook(conf_of_running(conf) or config.find(conf))


class PeerReport(TypedDict):
    """A peer of a conf. `expires` is Unix time in seconds."""

    name: str | None
    public_key: str
    allowed_ips: list[str]
    disabled: bool
    expires: float | None


def _as_json(peer: ListedPeer) -> PeerReport:
    return {
        "name": peer.config.friendly_name,
        "public_key": peer.config.public_key.to_base64(),
        "allowed_ips": [str(network) for network in peer.config.networks],
        "disabled": peer.is_disabled,
        "expires": peer.config.expires,
    }


@contextlib.contextmanager
def _mistakes_printed() -> Iterator[None]:
    try:
        yield
    except config.ConfigErrors as errors:
        complain(errors)
        raise typer.Exit(EXIT_USAGE) from None


@contextlib.contextmanager
def _edited(conf: str, peer: str) -> Iterator[tuple[PeerBook, ListedPeer]]:
    """A conf and one of its peers, to be changed in the block; written if that succeeds."""
    with _mistakes_printed():
        book = _opened(conf)
        yield book, book.find(peer)
        book.write()


def _print(conf: config.TunnelConfig, *, as_qr: bool) -> None:
    if as_qr:
        from tunnel.cli.qr import show

        show(conf)
    else:
        # Trying again would fail: the peer is in the conf already.
        warn_if_others_can_read("Run chmod 600 on it, and use --output next time.")
        typer.echo(config.dump(conf), nl=False)
    sys.stdout.flush()


@contextlib.contextmanager
def _undone_is_said() -> Iterator[None]:
    try:
        yield
    except config.ConfigErrors:  # it says itself what the file is now
        raise
    except BaseException:
        complain("tunnel: the peer was not added, as its conf could not be printed")
        raise


@contextlib.contextmanager
def _written(path: Path, text: str) -> Iterator[None]:
    """Write a conf to a new file before the block; it is removed if the block fails."""
    need_folder_of(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}; nothing was changed", EXIT_USAGE)
    with open(descriptor, "w") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
            yield
        except OSError as error:
            path.unlink()
            fail(f"cannot write {path}: {error.strerror}; nothing was changed")
        except BaseException:
            path.unlink()
            raise


def _reload(book: PeerBook, done: str) -> None:
    """Print what was done to standard error, and reload a tunnel that runs from the conf."""
    name = book.path.name.removesuffix(".conf")
    try:
        apply_conf(book.path)
    except NotAppliedError as error:
        if error.code not in (NOT_RUNNING, OTHER_CONF):
            fail(f"{done} in {book.path}, but {error}")
        complain(f"{done}; {error}", logging.INFO if error.code == NOT_RUNNING else logging.WARNING)
    else:
        complain(f"{done}; {name} is reloaded", logging.INFO)
