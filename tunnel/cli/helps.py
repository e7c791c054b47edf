"""The help of the commands: of a switch what it does, of another option also what it takes.

typer shows the Python type of each parameter, as in `--json <bool>`, which fills a third of a line
of 80 columns with what no reader asks.
"""

from __future__ import annotations

import copy
from typing import Any

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


class PlainCommand(TyperCommand):
    """A command whose options are shown with the names of their values."""

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
