"""`tunnel completion`: what makes a shell complete the words of a command line of `tunnel`.

The script of each shell asks `tunnel complete-words`, so that names are those of this moment, and
loads no more than the command in question needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tunnel.cli.fields import FIELDS
from tunnel.cli.main import GROUPS, make_app
from tunnel.control import run_folder

app = typer.Typer()

_BASH = """\
# bash completion for tunnel
_tunnel() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete-words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != */ ]] || compopt -o nospace
}
complete -o default -F _tunnel tunnel
"""

_ZSH = """\
#compdef tunnel
_tunnel() {
    local -a found
    found=("${(@f)$("${words[1]}" complete-words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -z ${found[1]} ]]; then
        _files
        return
    fi
    compadd -- "${(@)found:#*/}"
    compadd -S '' -- "${(@M)found:#*/}"
}
if [[ ${funcstack[1]} = _tunnel ]]; then
    _tunnel "$@"
else
    compdef _tunnel tunnel
fi
"""

_FISH = """\
# fish completion for tunnel
function __tunnel_words
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] complete-words -- $words[2..-1] 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c tunnel -f -a '(__tunnel_words)'
"""


class Shell(StrEnum):
    """One that we have a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}
"""The script of each shell."""


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="`bash`, `zsh` or `fish`.")],
) -> None:
    """Print the script with which a shell completes commands, options, names and confs.

    Put it where the shell looks for such scripts, for instance:

        tunnel completion bash > /etc/bash_completion.d/tunnel
        tunnel completion zsh > /usr/share/zsh/vendor-completions/_tunnel
        tunnel completion fish > /etc/fish/completions/tunnel.fish
    """
    typer.echo(SCRIPTS[shell], nl=False)


@app.command("complete-words", hidden=True)
def complete_words(words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Print what the last of the words may become, one a line; nothing means any file.

    Example:

        tunnel complete-words -- show wg
    """
    for candidate in candidates(words or [""]):
        typer.echo(candidate)


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of the words behind `tunnel` may become, sorted."""
    *before, current = words
    if before[:1] == ["help"]:
        before = before[1:]
        if current.startswith("-"):
            return []
    if not before and not current.startswith("-"):
        # Without loading a command.
        return _beginning(current, _commands())
    found = _Line(before).candidates(current)
    return _beginning(current, found)


def _commands() -> Iterator[str]:
    return (name for _, rows in GROUPS for names, _ in rows for name in names)


def _beginning(current: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(current)})


class _Line:
    """A command line up to a word: the command, its arguments, and an option that wants a value."""

    def __init__(self, before: Sequence[str]) -> None:
        known = before[:1] if before and before[0] in _commands() else []
        self._command: object = typer.main.get_command(make_app(*known))
        self._context = typer.Context(typer.main.get_command(make_app("help")))
        self._arguments: list[str] = []
        self._option: TyperOption | None = None
        self._is_foreign = False
        for word in before:
            self._take(word)

    def _take(self, word: str) -> None:
        if self._option is not None:
            self._option = None
        elif word == "--":
            self._is_foreign = True
        elif word.startswith("-"):
            option = next((each for each in self._options() if word in each.opts), None)
            self._option = option if option is not None and not option.is_flag else None
        elif isinstance(self._command, TyperGroup):
            self._command = self._command.get_command(self._context, word)
        else:
            self._arguments.append(word)

    def _options(self) -> Iterator[TyperOption]:
        if isinstance(self._command, (TyperCommand, TyperGroup)):
            for each in self._command.get_params(self._context):
                if isinstance(each, TyperOption) and not each.hidden:
                    yield each

    def candidates(self, current: str) -> Iterable[str]:
        """What may stand there."""
        if self._is_foreign:
            return ()
        if self._option is not None:
            return self._values(self._option, current)
        if current.startswith("-"):
            return [name for each in self._options() for name in each.opts]
        if isinstance(self._command, TyperGroup):
            below = self._command.commands.values()
            return [str(each.name) for each in below if not each.hidden]
        if isinstance(self._command, TyperCommand):
            arguments = [each for each in self._command.params if isinstance(each, TyperArgument)]
            place = len(self._arguments)
            if place < len(arguments):
                return self._values(arguments[place], current)
        return ()

    def _values(self, parameter: TyperArgument | TyperOption, current: str) -> Iterable[str]:
        choices = getattr(parameter.type, "choices", None)
        if choices:
            return [str(getattr(each, "value", each)) for each in choices]
        meaning = str(parameter.metavar).strip("[]")
        kind = next((each for each in KINDS if meaning.startswith(each)), None)
        return () if kind is None else KINDS[kind](current, self._arguments)


def _running(_current: str, _arguments: Sequence[str]) -> Iterable[str]:
    return run_folder.running_names()


def _fields(_current: str, _arguments: Sequence[str]) -> Iterable[str]:
    return FIELDS


def _confs(current: str, _arguments: Sequence[str]) -> Iterator[str]:
    """Names of confs in their folders, and of running tunnels; confs as files behind a path."""
    if "/" in current:
        folder = Path(current[: current.rindex("/") + 1])
        for path in _listed(folder):
            shown = current[: current.rindex("/") + 1] + path.name
            if path.is_dir():
                yield f"{shown}/"
            elif path.suffix == ".conf":
                yield shown
        return
    from tunnel.config.files import folders

    yield from run_folder.running_names()
    for each in folders():
        yield from (path.stem for path in _listed(each) if path.suffix == ".conf")
    yield from (path.name for path in _listed(Path()) if path.suffix == ".conf")


def _peers(_current: str, arguments: Sequence[str]) -> Iterable[str]:
    """The peers of the conf that stands before."""
    from tunnel.config import ConfigErrors, find
    from tunnel.config.peers import PeerBook

    try:
        return [peer.name for peer in PeerBook(find(arguments[0])).peers]
    except (ConfigErrors, IndexError):
        return ()


def _listed(folder: Path) -> Iterator[Path]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    yield from (folder / name for name in names if not name.startswith("."))


KINDS: dict[str, Callable[[str, Sequence[str]], Iterable[str]]] = {
    "CONF": _confs,
    "NAME": _running,
    "FIELD": _fields,
    "PEER": _peers,
}
"""The beginning of a metavar, and what can stand there: of the word so far and the arguments before
it.
"""
