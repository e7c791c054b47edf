"""What the commands share: arguments, exit codes, how errors are printed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.linux.files import RUN_FOLDER
from tunnel.log import output, redact

if TYPE_CHECKING:
    from tunnel.config import TunnelConfig

EXIT_FAILED = 1
"""The machine or the daemon refused; the reason is on standard error."""
EXIT_USAGE = 2
"""The command line or the conf is wrong; nothing was touched."""

CONTEXT = {"help_option_names": ["-h", "--help"]}
"""For the outermost app of a command line; all commands below inherit it."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="CONF|NAME",
        help="A conf file, or the name of one in /etc/tunnel or /etc/wireguard.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: object) -> None:
    """Print a value of JSON-ready types and of those that have `to_json`."""
    typer.echo(json.dumps(value, indent=2, default=_to_json))


def _to_json(value: Any) -> object:
    return value.to_json()


def fail(message: object, code: int = EXIT_FAILED) -> NoReturn:
    """Print what went wrong to standard error and leave with `code`."""
    complain(f"tunnel: {in_words(message)}")
    raise typer.Exit(code)


def in_words(message: object) -> str:
    """A message; of an error of the system the file and the reason, without the number."""
    if isinstance(message, OSError) and message.strerror:
        place = f"{message.filename}: " if message.filename else ""
        return f"{place}{message.strerror}"
    return str(message)


def complain(message: object, level: int = logging.ERROR) -> None:
    """Print to standard error, line by line, harmless to a terminal, at its level in a journal."""
    prefix = f"<{output.priority(level)}>" if output.goes_to_journal(sys.stderr) else ""
    for line in redact.redact(str(message)).split("\n"):
        typer.echo(prefix + redact.printable(line), err=True)


def load_config(name: str) -> TunnelConfig:
    """The conf a user means by `name`; leaves with every mistake printed if it has any."""
    from tunnel import config

    try:
        loaded = config.load(config.find(name))
    except config.ConfigErrors as errors:
        complain(errors)
        raise typer.Exit(EXIT_USAGE) from None
    for warning in loaded.warnings:
        complain(f"warning: {warning}", logging.WARNING)
    return loaded


def conf_of_running(name: str) -> str | None:
    """The conf of the running tunnel `name`, wherever it lies; None if there is none any more.

    None as well if no such tunnel runs, or if we may not ask its daemon.
    """
    if name not in run_folder.running_names():
        return None
    try:
        with TunnelClient(name) as client:
            conf = client.status().conf
    except (ControlError, OSError):
        return None
    return conf if conf and os.path.exists(conf) else None


def running_names() -> list[str]:
    """The interfaces that run; leaves with an error if this user may not list them."""
    names = run_folder.running_names()
    if not names and run_folder.is_hidden():
        fail(f"only root may list the tunnels in {RUN_FOLDER}: use sudo")
    return names


def interface_name(name: str) -> str:
    """The interface that a conf's path, its file name or a bare name stands for."""
    return Path(name).name.removesuffix(".conf")


def writable(path: Path) -> None:
    """Leave if a file could not be written there: to be known before the work, not after it."""
    try:
        if path.exists():
            path.open("ab").close()
        else:
            path.touch()
            path.unlink()
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", EXIT_USAGE)


@contextlib.contextmanager
def refusals_printed() -> Iterator[None]:
    """Leave with the daemon's reason printed when it refuses."""
    try:
        yield
    except ControlError as error:
        if error.code == "conf":
            complain(error)
            raise typer.Exit(EXIT_USAGE) from None
        fail(error)


def warn_if_others_can_read() -> None:
    """Warn, as wg does, if a secret is written to a file that all users can read."""
    try:
        status = os.fstat(1)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
        typer.echo(
            "Warning: writing to world accessible file.\n"
            "Consider setting the umask to 077 and trying again.",
            err=True,
        )
