"""The help of the commands: of a switch what it does, of another option also what it takes.

typer shows the Python type of each parameter, as in `--json <bool>`, which fills a third of a line
of 80 columns with what no reader asks.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class _PlainOption(TyperOption):
    def display_type_rich(self, ctx: Any) -> str | None:
        return self.metavar


class _PlainArgument(TyperArgument):
    def display_type_rich(self, ctx: Any) -> str | None:
        return None


def _plain(parameters: list[Any]) -> list[Any]:
    """The same parameters, made by typer, as ours: it has no place to name another class."""
    for each in parameters:
        if type(each) is TyperOption:
            each.__class__ = _PlainOption
        elif type(each) is TyperArgument:
            each.__class__ = _PlainArgument
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
