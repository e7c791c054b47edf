"""The page of all commands, in Markdown, made from the commands themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tunnel.cli.reference import EXIT_CODES, CommandHelp, Parameter, commands


def page() -> str:
    """The page: what `tunnel COMMAND -h` says of each command."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES)
    yield from ("# Commands", "", f"Exit codes: {codes}.")
    for title, group in commands():
        yield from ("", f"## {title}")
        for command in group:
            yield from _command(command, "###")


def _command(command: CommandHelp, heading: str) -> Iterator[str]:
    yield from ("", f"{heading} {command.title}", "", command.sentence, "")
    if not command.below:
        yield from ("```sh", f"{command.title} {command.usage}", "```", "")
    for each in command.paragraphs:
        if each.startswith("    "):
            yield from ("```sh", textwrap.dedent(each), "```", "")
        else:
            yield from (each, "")
    if command.parameters:
        yield from ("| | |", "|---|---|")
        yield from map(_row, command.parameters)
    for below in command.below:
        yield from _command(below, f"{heading}#")


def _row(parameter: Parameter) -> str:
    words = [*parameter.names[:-1], " ".join([*parameter.names[-1:], parameter.value]).strip()]
    label = ", ".join(f"`{word}`" for word in words)
    return f"| {label} | {parameter.text} |"
