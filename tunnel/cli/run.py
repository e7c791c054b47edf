"""`tunnel run`: a command whose only network is the tunnel of a conf."""

from __future__ import annotations

import logging
from typing import Annotated, Any, NoReturn

import typer

from tunnel.cli.common import (
    EXIT_USAGE,
    complain,
    fail,
    interface_name,
    load_config,
    refusals_printed,
)
from tunnel.cli.helps import PlainCommand
from tunnel.cli.startup import given_environment
from tunnel.errors import TunnelError
from tunnel.log import output

app = typer.Typer()


class _WithCommand(PlainCommand):
    """Leaves the options of COMMAND to it, also without `--` before it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.allow_interspersed_args = False


@app.command(cls=_WithCommand)
def run(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONF -- COMMAND",
            help="A conf file, or its name as for `up`; the command and its arguments.",
        ),
    ],
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            metavar="[ADDRESS:]PORT:PORT[/udp]",
            help="A port of this host that leads to one inside; may be repeated.",
        ),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            "--join",
            metavar="NAME",
            help="Run it in the network of a tunnel run that goes on. There is no CONF then.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to standard error what happens.")
    ] = False,
) -> None:
    """Run a command whose only network is the tunnel of a conf: TCP, UDP, ICMP, IPv6 and DNS.

    It has a network namespace of its own; the rest of the machine is as it was. Nothing of it
    leaves but encrypted UDP, and nothing of the host's network is reached. Root is not needed where
    the kernel allows user namespaces. The exit code is the command's; a signal that ended it
    ends this, too: a shell shows 128 plus its number. When it has ended, so has all that it left
    running inside.

    Example:

        tunnel run office -- curl http://10.77.0.1/
    """
    if join is not None:
        if publish:
            fail("-p belongs to the first command: with --join it opens no ports", EXIT_USAGE)
        _join(interface_name(join), words)
    conf, command = _split(words)
    output.log_to_stream(verbose=verbose)
    if not verbose:
        logging.getLogger("tunnel").setLevel(logging.WARNING)
    config = load_config(conf)

    from tunnel.containers import ports
    from tunnel.containers.command import end_by
    from tunnel.containers.run import RunRequest
    from tunnel.containers.run import run as run_command

    environment = given_environment()
    _check(command, environment)
    try:
        published = [each for text in publish or () for each in ports.parse(text)]
    except ports.PublishError as error:
        fail(error, EXIT_USAGE)
    try:
        code = run_command(RunRequest(config, command, environment, published))
    except TunnelError as error:
        output.flush()
        fail(error)
    if code < 0:
        output.flush()
        code = end_by(-code)
    raise typer.Exit(code)


def _join(name: str, command: list[str]) -> NoReturn:
    """Become the command, in the namespaces of the run of that name."""
    from tunnel.containers import control
    from tunnel.containers.command import become

    environment = given_environment()
    _check(command, environment)
    try:
        with refusals_printed():
            control.find(name).enter()
    except OSError as error:
        fail(f"the network of {name} cannot be entered: {error.strerror}")
    become(command, environment)


def _check(command: list[str], environment: dict[str, str]) -> None:
    """Leave, as a shell does, if there is no such command."""
    from tunnel.containers.command import find

    problem = find(command, environment)
    if problem is not None:
        code, text = problem
        complain(f"tunnel: {text}")
        raise typer.Exit(code)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The conf and the command."""
    conf, command = words[0], words[1:]
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        fail(f"which command? For a shell: tunnel run {conf} -- sh", EXIT_USAGE)
    return conf, command
