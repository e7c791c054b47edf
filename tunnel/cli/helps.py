"""The help of the commands: of a switch what it does, of another option also what it takes.

typer shows the Python type of each parameter, as in `--json <bool>`, which fills a third of a line
of 80 columns with what no reader asks.
"""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


def _no_metavar(*_: object, **__: object) -> str:
    return ""


def _plain(parameters: list[Any]) -> list[Any]:
    """The same parameters, without a name of their type."""
    for each in parameters:
        if type(each) is TyperArgument or (type(each) is TyperOption and each.metavar is None):
            # A copy, as parameters share the types of typer.
            each.type = copy.copy(each.type)
            vars(each.type)["get_metavar"] = _no_metavar
    return parameters


def _fenced(text: str) -> str:
    """The text of a help, with each indented block between fences.

    typer removes the least indentation of all that follows the first sentence, and so the only
    mark of a block if no second line of prose is there.
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```\n{textwrap.dedent(each)}\n```" if each.startswith("    ") else each
        for each in paragraphs
    )


class PlainCommand(TyperCommand):
    """A command whose options are shown with the names of their values."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write its help, with the examples as they are typed."""
        shown = copy.copy(self)
        shown.help = _fenced(self.help or "")
        TyperCommand.format_help(shown, ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of such commands: those below it become such."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments."""
        return _plain(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, if there is one."""
        found = super().get_command(ctx, cmd_name)
        if type(found) is TyperCommand:
            found.__class__ = PlainCommand
        return found


Row = tuple[Sequence[str], str]
"""Commands that belong together, and what they are for."""


def screen(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """All commands of `tunnel` in groups: at most 23 lines of 80 columns, so that a prompt fits
    below on the smallest terminal.
    """
    lines = [
        typer.style("Usage: tunnel [-h] [--version] COMMAND [OPTIONS] [ARGUMENTS]", bold=True),
        "A userspace VPN that speaks WireGuard and shows every packet's way.",
    ]
    width = max(len(", ".join(commands)) for _, rows in groups for commands, _ in rows)
    for title, rows in groups:
        lines.append(typer.style(title, bold=True))
        lines += [f"  {', '.join(commands):<{width}}  {words}" for commands, words in rows]
    lines.append("Exit codes: 0 done, 1 failed, 2 wrong command line or conf (nothing done).")
    return "\n".join(lines) + "\n"
