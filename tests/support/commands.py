"""The commands of a command line."""

from __future__ import annotations

from typer.core import TyperGroup


def commands(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command line below `command`, itself included."""
    found = [path]
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            found += commands(below, (*path, name))
    return found
