"""`tunnel web`: a page for a hub."""

from __future__ import annotations

import getpass
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunnel import config
from tunnel.cli.common import (
    EXIT_USAGE,
    Name,
    complain,
    conf_of_running,
    fail,
    load_config,
    need_folder_of,
)
from tunnel.errors import TunnelError, unwrapped
from tunnel.linux.files import RUN_FOLDER
from tunnel.log import output

app = typer.Typer()


@app.command()
def web(
    conf: Name,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="ADDRESS, ADDRESS:PORT or unix:PATH. Default: the tunnel's own first address, "
            "port 51821.",
        ),
    ] = None,
    all_addresses: Annotated[
        bool,
        typer.Option("--all-addresses", help="Allow --listen 0.0.0.0 or [::]."),
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name under which browsers may open the page."),
    ] = None,
    set_password: Annotated[
        bool,
        typer.Option("--set-password", help="Ask for a new password, store its hash, and exit."),
    ] = False,
    no_login: Annotated[
        bool,
        typer.Option("--no-login", help="Ask for no password; on a unix socket only."),
    ] = False,
) -> None:
    """Serve a web page for a hub: its peers, their traffic, and who connected when.

    The page adds, disables and removes peers, and gives a new peer's conf as a download and as a QR
    code. By default it listens at the tunnel's own address: the tunnel encrypts what is sent there,
    and only peers and this host are answered.

    Examples:

        tunnel web office --set-password
        tunnel web office
        tunnel web office --listen unix:/run/tunnel/office.web
    """
    try:
        from tunnel.web import login, serve
    except ModuleNotFoundError as error:
        python = sys.executable
        fail(
            f"the page needs the Python package {error.name}: "
            f"{python} -m pip install starlette 'hypercorn[trio]'"
        )
    path = Path(conf_of_running(conf) or _found(conf)).absolute()
    password = login.PasswordFile(path)
    if set_password:
        try:
            password.set(_asked_password())
        except TunnelError as error:
            fail(error)
        complain(f"the password's hash is in {password.path}", logging.INFO)
        return
    loaded = load_config(str(path))
    own = [address.ip for address in loaded.interface.addresses]
    if listen is None and not own:
        fail("the conf has no Address for the page to listen at: add --listen", EXIT_USAGE)
    try:
        where = serve.Listen(address=own[0]) if listen is None else serve.Listen.parse(listen)
    except TunnelError as error:
        fail(error, EXIT_USAGE)
    if where.address is not None and where.address.is_unspecified and not all_addresses:
        fail(f"--listen {listen} is every address of this host: add --all-addresses", EXIT_USAGE)
    if where.path is not None and where.path.parent != RUN_FOLDER:
        need_folder_of(where.path)
    is_own = where.address in own
    if no_login and where.path is None:
        fail("--no-login needs --listen unix:PATH, which only its owner can open", EXIT_USAGE)
    if not no_login and not password.is_there():
        fail(f"no password is set: tunnel web {conf} --set-password", EXIT_USAGE)
    output.log_to_stream()
    if where.address is not None and listen is not None and not where.address.is_loopback:
        _warn(is_own, listen)
    page = serve.Page(
        path,
        where,
        names=frozenset(name.lower() for name in host or ()),
        is_own=is_own,
        members_only=listen is None,
        has_login=not no_login,
    )
    import trio

    try:
        with unwrapped():
            trio.run(serve.run, page)
    except TunnelError as error:
        output.flush()
        fail(error)


def _found(conf: str) -> Path:
    try:
        return config.find(conf)
    except config.ConfigErrors as errors:
        complain(errors)
        raise typer.Exit(EXIT_USAGE) from None


def _asked_password() -> str:
    """The new password: typed twice at a terminal, else the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("New password: ")
    if getpass.getpass("The same again: ") != first:
        fail("the two passwords differ; nothing was changed")
    return first


def _warn(is_own: bool, listen: str) -> None:
    what = "the password and confs cross the network unencrypted"
    if is_own:
        what = "hosts outside the tunnel can reach that address, and then " + what
    complain(
        f"warning: with --listen {listen}, {what}: put a TLS proxy in front of it, or omit "
        "--listen",
        logging.WARNING,
    )
