"""The help of `tunnel` in one screen, the same help by `tunnel help`, an example in each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from tests.support.commands import commands
from tunnel.cli import main

ROOT = typer.main.get_command(main.make_app())
ALL = commands(ROOT)


def named(path: tuple[str, ...]) -> object:
    found: object = ROOT
    for name in path:
        assert isinstance(found, TyperGroup)
        found = found.commands[name]
    return found


LEAVES = [path for path in ALL if not isinstance(named(path), TyperGroup)]


def output_of(*words: str) -> str:
    done = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(main.make_app(), words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)], ids=" ".join)
def test_all_commands_are_one_screen_with_room_for_a_prompt(words: tuple[str, ...]) -> None:
    lines = output_of(*words).splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_without_a_word_the_screen_is_shown_too() -> None:
    done = CliRunner().invoke(main.make_app(), [])
    assert done.exit_code == 2
    assert done.output == output_of("--help")


def test_every_command_is_in_one_group() -> None:
    listed = [name for _, rows in main.GROUPS for names, _ in rows for name in names]
    assert isinstance(ROOT, TyperGroup)
    shown = [name for name, command in ROOT.commands.items() if not command.hidden]
    assert sorted(listed) == sorted(shown)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_help_has_an_example(path: tuple[str, ...]) -> None:
    shown = output_of(*path, "--help")
    program = ("docker network create",) if path == ("docker-plugin",) else ()
    typed = (f"tunnel {' '.join(path)}", *program)
    assert [line for line in shown.splitlines() if line.startswith("  ") and has_any(line, typed)]


def has_any(line: str, texts: tuple[str, ...]) -> bool:
    return any(text in line for text in texts)


def test_further_lines_of_an_example_keep_their_indentation() -> None:
    lines = output_of("docker-plugin", "--help").splitlines()
    first = next(number for number, line in enumerate(lines) if "docker network create" in line)
    assert lines[first].rstrip().endswith("\\")
    indents = [len(line) - len(line.lstrip()) for line in lines[first : first + 3]]
    assert indents[0] < indents[1] == indents[2]


@pytest.mark.parametrize("path", [("up",), ("service", "install")], ids=" ".join)
def test_the_word_help_shows_what_the_option_shows(path: tuple[str, ...]) -> None:
    assert output_of("help", *path) == output_of(*path, "--help")


def test_help_of_no_command_is_refused() -> None:
    done = CliRunner().invoke(main.make_app(), ["help", "nonsense"])
    assert done.exit_code == 2
    assert "nonsense" in done.output


_TO_A_FULL_DISK = """\
import json, os, sys
import typer
from tunnel.cli import entry, main
typer.main.get_command(main.make_app())
ended = {}
for words in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        os.dup2(writing, 2)
        sys.argv = ["tunnel", *words, "--help"]
        code = 0
        try:
            entry.run()
        except SystemExit as end:
            code = end.code
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    ended[" ".join(words)] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
print(json.dumps(ended))
"""


def test_no_command_is_silent_about_output_that_is_lost() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _TO_A_FULL_DISK, json.dumps(ALL)],
        capture_output=True,
        text=True,
        check=True,
    )
    reason = "tunnel: cannot write the output: No space left on device\n"
    assert json.loads(ran.stdout) == {" ".join(path): [1, reason] for path in ALL}
