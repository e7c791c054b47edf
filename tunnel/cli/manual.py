"""The manual pages, made from the commands: `python -m tunnel.cli.manual FOLDER`.

One page for `tunnel`, one for each of its commands and one for each other program, in the macros of
man(7).
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tunnel.cli import quick, wg
from tunnel.cli.common import CONTEXT
from tunnel.cli.main import GROUPS, make_app

_EXIT: Final = (("0", "done"), ("1", "failed"), ("2", "wrong command line or conf"))
_CODE = re.compile(r"`([^`]+)`")


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    root = typer.main.get_command(make_app())
    assert isinstance(root, TyperGroup)
    context = typer.Context(
        root, info_name="tunnel", help_option_names=CONTEXT["help_option_names"]
    )
    made = {"tunnel.1": "\n".join(_overview()) + "\n"}
    for _, rows in GROUPS:
        for names, _ in rows:
            for name in names:
                command = root.get_command(context, name)
                lines = _page(f"tunnel {name}", command, context)
                made[f"tunnel-{name}.1"] = "\n".join(lines) + "\n"
    for name, (sentence, text) in _PROGRAMS.items():
        made[f"{name}.1"] = "\n".join(_program(name, sentence, text())) + "\n"
    return made


_CNI: Final = """\
Container runtimes call this program; it reads a network's configuration in
JSON from standard input, and CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS,
CNI_IFNAME, CNI_ARGS and CNI_PATH from the environment. CNI_COMMAND is one of
ADD, DEL, CHECK, GC, STATUS and VERSION. The result, or the error, is JSON on
standard output.
"""

_PROGRAMS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "tunnel-wg": (
        "a userspace WireGuard daemon for wg and wg-quick",
        lambda: wg.make_parser().format_help(),
    ),
    "tunnel-wg-quick": ("set up a WireGuard interface simply", lambda: quick.USAGE),
    "tunnel-cni": ("a CNI plugin for networks through a tunnel", lambda: _CNI),
}
"""The other programs: the sentence of each, and the text that describes it."""


def _program(name: str, sentence: str, text: str) -> Iterator[str]:
    yield from _head(name, sentence)
    # The line lengths of the text are those of a terminal: it is not filled again.
    yield from (".SH DESCRIPTION", ".in 1n", ".nf")
    yield from (_text(line) if line else ".sp" for line in text.rstrip().splitlines())
    yield from (".fi", ".in", ".SH SEE ALSO", ".BR tunnel (1)")


def _head(title: str, sentence: str) -> Iterator[str]:
    name = title.replace(" ", "-")
    yield f'.TH "{name.upper()}" 1 "" "tunnel {version("tunnel-vpn")}" "tunnel"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(sentence)}"


def _overview() -> Iterator[str]:
    yield from _head("tunnel", "a userspace VPN that speaks WireGuard")
    yield from (".SH SYNOPSIS", ".B tunnel", "[\\-h] [\\-\\-version] COMMAND [OPTIONS] [ARGUMENTS]")
    yield ".SH COMMANDS"
    for title, rows in GROUPS:
        yield f".SS {_text(title)}"
        for names, words in rows:
            yield ".TP"
            yield ", ".join(f"\\fB{_text(f'tunnel-{name}')}\\fP(1)" for name in names)
            yield _text(words)
    yield from _exit_codes()
    yield from (".SH FILES", ".TP", "/etc/tunnel, /etc/wireguard", "The confs.")
    yield from (".TP", "/run/tunnel", "The sockets and logs of running tunnels.")


def _exit_codes() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in _EXIT:
        yield from (".TP", code, meaning)


def _page(title: str, command: object, above: typer.Context) -> Iterator[str]:
    assert isinstance(command, (TyperCommand, TyperGroup))
    sentence, *paragraphs = _paragraphs(command)
    yield from _head(title, sentence.rstrip("."))
    if isinstance(command, TyperGroup):
        yield from (".SH SYNOPSIS", f".B {_text(title)}", "COMMAND [OPTIONS] [ARGUMENTS]")
        yield ".SH DESCRIPTION"
        yield from _prose([sentence, *paragraphs])
        context = typer.Context(command, info_name=str(command.name), parent=above)
        for name in command.commands:
            below = command.get_command(context, name)
            assert isinstance(below, TyperCommand)
            if not below.hidden:
                yield f".SH {_text(f'{title} {name}'.upper())}"
                yield from _usage(f"{title} {name}", below, context)
                yield from _prose(_paragraphs(below))
                yield from _parameters(below, context)
    else:
        yield ".SH SYNOPSIS"
        yield from _usage(title, command, above)
        yield ".SH DESCRIPTION"
        yield from _prose([sentence, *paragraphs])
        yield ".SH OPTIONS"
        yield from _parameters(command, above)
    yield from _exit_codes()
    yield from (".SH SEE ALSO", ".BR tunnel (1)")


def _paragraphs(command: TyperCommand | TyperGroup) -> list[str]:
    return inspect.cleandoc(command.help or "").split("\n\n")


def _usage(title: str, command: TyperCommand, above: typer.Context) -> Iterator[str]:
    context = typer.Context(command, info_name=command.name, parent=above)
    yield f".B {_text(title)}"
    yield _text(" ".join(command.collect_usage_pieces(context)))


def _prose(paragraphs: list[str]) -> Iterator[str]:
    for each in paragraphs:
        yield ".PP"
        if each.startswith("    "):
            yield from (".RS 4", ".nf")
            yield from (_text(line) for line in textwrap.dedent(each).split("\n"))
            yield from (".fi", ".RE")
        else:
            yield from (_text(line) for line in each.split("\n"))


def _parameters(command: TyperCommand, above: typer.Context) -> Iterator[str]:
    context = typer.Context(command, info_name=command.name, parent=above)
    heading = ""
    # As in the help of the command: those that have a heading of their own come last.
    for each in sorted(command.get_params(context), key=_panel):
        if _panel(each) != heading:
            heading = _panel(each)
            yield f".SS {_text(heading)}"
        if isinstance(each, TyperArgument):
            label = f"\\fI{_text(each.metavar or each.name or '')}\\fP"
        elif isinstance(each, TyperOption) and not each.hidden:
            names = [*each.opts, *each.secondary_opts]
            label = ", ".join(f"\\fB{_text(option)}\\fP" for option in names)
            if not each.is_flag:
                label += f" \\fI{_text(each.metavar or '')}\\fP"
        else:
            continue
        yield from (".TP", label)
        # A switch that is on by itself: its name says so.
        default = each.opts[0] if each.default is True else each.default
        shown = "" if each.required or default in (None, False, "", ()) else f" Default: {default}."
        yield _text((each.help or "") + shown)


def _panel(parameter: object) -> str:
    """The heading that the parameter is under; empty for none."""
    return getattr(parameter, "rich_help_panel", None) or ""


def _text(text: str) -> str:
    """Words as roff takes them, with what is between backticks in bold."""
    text = text.replace("\\", "\\(rs").replace("-", "\\-")
    text = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in text)
    text = _CODE.sub(r"\\fB\1\\fP", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def write(folder: Path) -> None:
    """Write the pages into the folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tunnel.cli.manual FOLDER")
    write(Path(sys.argv[1]))
