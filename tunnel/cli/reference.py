"""What there is to say of each command, for the manual pages and the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tunnel.cli.common import CONTEXT
from tunnel.cli.main import GROUPS, make_app

EXIT_CODES: Final = (("0", "done"), ("1", "failed"), ("2", "wrong command line or conf"))
VERSION: Final = version("tunnel-vpn")


@dataclass(frozen=True)
class Parameter:
    """An argument, which has no `names`, or an option. `value` is what it takes, "" if nothing."""

    names: tuple[str, ...]
    value: str
    text: str


@dataclass(frozen=True)
class CommandHelp:
    """A command. `title` is the words that are typed, `usage` what follows them.

    A paragraph that begins with four spaces is an example, as it is typed. A group of commands has
    those `below` it, and no parameters of its own.
    """

    title: str
    usage: str
    sentence: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    below: tuple[CommandHelp, ...] = ()


def commands() -> Iterator[tuple[str, Iterator[CommandHelp]]]:
    """The commands of each group that `tunnel --help` has, with the group's title."""
    root = typer.main.get_command(make_app())
    assert isinstance(root, TyperGroup)
    context = typer.Context(
        root, info_name="tunnel", help_option_names=CONTEXT["help_option_names"]
    )
    for title, rows in GROUPS:
        found = (root.get_command(context, name) for names, _ in rows for name in names)
        yield title, (_command("tunnel", each, context) for each in found)


def _command(before: str, command: object, above: typer.Context) -> CommandHelp:
    assert isinstance(command, (TyperCommand, TyperGroup))
    title = f"{before} {command.name}"
    context = typer.Context(command, info_name=command.name, parent=above)
    sentence, *paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    if isinstance(command, TyperGroup):
        below = (command.get_command(context, name) for name in command.commands)
        return CommandHelp(
            title,
            "COMMAND [OPTIONS] [ARGUMENTS]",
            sentence,
            tuple(paragraphs),
            below=tuple(
                _command(title, each, context) for each in below if each and not each.hidden
            ),
        )
    usage = " ".join(command.collect_usage_pieces(context))
    return CommandHelp(
        title, usage, sentence, tuple(paragraphs), tuple(_parameters(command, context))
    )


def _parameters(command: TyperCommand, context: typer.Context) -> Iterator[Parameter]:
    names: tuple[str, ...]
    for each in command.get_params(context):
        if isinstance(each, TyperArgument):
            names, value = (), each.metavar or each.name or ""
        elif isinstance(each, TyperOption) and not each.hidden:
            # click has the names of --help in any order.
            names = (*sorted(each.opts, key=len, reverse=True), *each.secondary_opts)
            value = "" if each.is_flag else each.metavar or ""
        else:
            continue
        # A switch that is on by itself: its name says so.
        default = each.opts[0] if each.default is True else each.default
        shown = "" if each.required or default in (None, False, "", ()) else f" Default: {default}."
        yield Parameter(names, value, (each.help or "") + shown)
