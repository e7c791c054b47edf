"""The manual pages, made from the commands: `python -m tunnel.cli.manual FOLDER`.

One page for `tunnel`, one for each of its commands and one for each other program, in the macros of
man(7).
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tunnel.cli import quick, wg
from tunnel.cli.main import GROUPS
from tunnel.cli.reference import EXIT_CODES, VERSION, CommandHelp, Parameter, commands

_CODE = re.compile(r"`([^`]+)`")


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    made = {"tunnel.1": "\n".join(_overview()) + "\n"}
    for _, group in commands():
        for each in group:
            made[f"{each.title.replace(' ', '-')}.1"] = "\n".join(_page(each)) + "\n"
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
    yield f'.TH "{name.upper()}" 1 "" "tunnel {VERSION}" "tunnel"'
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
    for code, meaning in EXIT_CODES:
        yield from (".TP", code, meaning)


def _page(command: CommandHelp) -> Iterator[str]:
    yield from _head(command.title, command.sentence.rstrip("."))
    yield ".SH SYNOPSIS"
    yield from _usage(command)
    yield ".SH DESCRIPTION"
    yield from _prose([command.sentence, *command.paragraphs])
    for each in command.below:
        yield f".SH {_text(each.title.upper())}"
        yield from _usage(each)
        yield from _prose([each.sentence, *each.paragraphs])
        yield from _parameters(each.parameters)
    if not command.below:
        yield ".SH OPTIONS"
        yield from _parameters(command.parameters)
    yield from _exit_codes()
    yield from (".SH SEE ALSO", ".BR tunnel (1)")


def _usage(command: CommandHelp) -> Iterator[str]:
    yield f".B {_text(command.title)}"
    yield _text(command.usage)


def _prose(paragraphs: Sequence[str]) -> Iterator[str]:
    for each in paragraphs:
        yield ".PP"
        if each.startswith("    "):
            yield from (".RS 4", ".nf")
            yield from (_text(line) for line in textwrap.dedent(each).split("\n"))
            yield from (".fi", ".RE")
        else:
            yield from (_text(line) for line in each.split("\n"))


def _parameters(parameters: Sequence[Parameter]) -> Iterator[str]:
    heading = ""
    for each in parameters:
        if each.heading != heading:
            heading = each.heading
            yield f".SS {_text(heading)}"
        label = [", ".join(f"\\fB{_text(name)}\\fP" for name in each.names)] if each.names else []
        label += [f"\\fI{_text(each.value)}\\fP"] if each.value else []
        yield from (".TP", " ".join(label))
        yield _text(each.text)


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
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m tunnel.cli.manual FOLDER")
    write(Path(sys.argv[1]))
