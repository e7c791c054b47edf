"""What the commands share: arguments, exit codes, how errors are printed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.linux.files import RUN_FOLDER, create_file
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


def conf_of_daemon(name: str) -> str:
    """Where the conf of the running tunnel `name` is, or was; empty if no such tunnel runs, if it
    has none, or if we may not ask its daemon.
    """
    if name not in run_folder.running_names():
        return ""
    try:
        with TunnelClient(name) as client:
            return client.status().conf
    except (ControlError, OSError):
        return ""


def conf_of_running(name: str) -> str | None:
    """The conf of the running tunnel `name`, wherever it lies; None if it is to be found by name.

    Leaves if it was moved to where no one would look for it.
    """
    conf = conf_of_daemon(name)
    if not conf or os.path.exists(conf):
        return conf or None
    from tunnel import config

    try:
        config.find(name)
    except config.ConfigErrors:
        fail(
            f"{name} was set up from {conf}, which is gone: put it back, or give the path that it "
            f"has now, as ./{name}.conf",
            EXIT_USAGE,
        )
    return None


def running_names() -> list[str]:
    """The interfaces that run; leaves with an error if this user may not list them."""
    names = run_folder.running_names()
    if not names and run_folder.is_hidden():
        fail(f"only root may list the tunnels in {RUN_FOLDER}: use sudo")
    return names


def interface_name(name: str) -> str:
    """The interface that a conf's path, its file name or a bare name stands for."""
    return Path(name).name.removesuffix(".conf")


def need_folder_of(path: Path) -> None:
    """Leave if the folder of a new file is missing: none is made of a mistyped path."""
    try:
        path.parent.stat()
    except FileNotFoundError:
        folder = path.parent
        remedy = f"mkdir -p {shlex.quote(str(folder))}"
        fail(f"cannot write {path}: there is no folder {folder}: {remedy}", EXIT_USAGE)
    except OSError:
        return  # what writes the file says why it cannot


def writable(path: Path) -> None:
    """Leave if a file could not be written there: to be known before the work, not after it."""
    need_folder_of(path)
    try:
        if path.exists():
            path.open("ab").close()
        else:
            path.touch()
            path.unlink()
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", EXIT_USAGE)


def write_new(texts: Mapping[Path, str | bytes], *, public: Collection[Path] = ()) -> None:
    """Write new files, all or none; leaves on failure. All but those that are `public` have mode
    0600 from the start.
    """
    done: list[Path] = []
    for path in texts:
        need_folder_of(path)
    try:
        for path, text in texts.items():
            create_file(path, text, mode=0o644 if path in public else 0o600)
            done.append(path)
    except OSError as error:
        for each in done:
            each.unlink()
        message = f"cannot write {path}: {error.strerror}; nothing was written"
        if isinstance(error, FileExistsError):
            fail(f"{message}: choose another place", EXIT_USAGE)
        fail(message)


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


def warn_if_others_can_read(
    remedy: str = "Consider setting the umask to 077 and trying again.",
) -> None:
    """Warn, as wg does, if a secret is written to a file that all users can read."""
    try:
        status = os.fstat(1)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
        typer.echo(f"Warning: writing to world accessible file.\n{remedy}", err=True)
