"""Nothing is wider than a terminal of 80 columns: helps, traces, the lab's words."""

from __future__ import annotations

import io

import pytest
import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperOption
from typer.testing import CliRunner

from tests.support.commands import commands
from tunnel.cli import main, quick, timeline, wg
from tunnel.cli.helps import PlainCommand, PlainGroup
from tunnel.trace.journey import Journey, Step

WIDTH = 80


@pytest.mark.parametrize("path", commands(typer.main.get_command(main.make_app())), ids=" ".join)
def test_help_of_a_command(path: tuple[str, ...]) -> None:
    shown = CliRunner(env={"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH)}).invoke(
        main.make_app(), [*path, "--help"]
    )
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= WIDTH
    for type_of_python in ("<bool>", "<str>", "<path>", "range>", "<int", "<float", "<list"):
        assert type_of_python not in shown.output


def test_what_an_option_takes_has_a_name() -> None:
    root = typer.main.get_command(main.make_app())
    context = typer.Context(root)
    for path in commands(root):
        command: object = root
        for name in path:
            assert isinstance(command, PlainGroup)
            command = command.get_command(context, name)
        assert isinstance(command, (PlainCommand, PlainGroup)), path
        for parameter in command.get_params(context):
            if isinstance(parameter, TyperOption) and not parameter.is_flag:
                assert parameter.metavar, (path, parameter.name)


def test_help_of_the_other_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit):
        wg.main(["-h"], {})
    quick.main(["-h"], {})
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= WIDTH


def steps() -> Journey:
    what = "receiver index 0x12345678, counter 12 and some more words that fill the line up"
    return Journey(
        direction="out",
        packet="ICMP echo request",
        flow="[fd77:1234:5678:9abc::1] → [fd77:1234:5678:9abc::2]",
        outcome="dropped",
        death="OUTPUT of the outer packet: table inet filter, chain output, rule udp dport 1 drop",
        steps=(
            Step("tunnel", "session", what, 1.0, 1500),
            Step("tunnel", "seal", what, 1.0, 1500),
            Step("outer", "OUTPUT", what, 1.5, 1500, nat=f"{what} became {what}"),
        ),
    )


def shown(lines: list[Text]) -> list[str]:
    out = io.StringIO()
    timeline.show(Console(file=out, highlight=False), lines)
    return out.getvalue().splitlines()


def test_a_trace_is_folded_below_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    journey = steps()
    lines = shown([timeline.title(journey, 1), *timeline.lines(journey)])
    assert max(map(len, lines)) <= WIDTH
    first = next(number for number, line in enumerate(lines) if "├" in line)
    below = lines[first].index("receiver")
    assert lines[first + 1].startswith("         │")
    assert lines[first + 1].index("12 and") == below
    words = " ".join(line.strip(" │├─") for line in lines).split()
    assert journey.death is not None
    assert set(journey.death.split()) <= set(words), "no word is cut"


@pytest.mark.parametrize("label", ["  ✗ ", "  · ", "      seen   ", "      fix    ", "  in use  "])
def test_a_finding_is_folded_below_its_words(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    words = " ".join(f"word{number}" for number in range(40))
    first, *others = shown([Text(label + words)])
    assert first.startswith(f"{label}word0 ")
    assert all(len(line) - len(line.lstrip()) == len(label) for line in others)
    assert max(map(len, [first, *others])) <= WIDTH
    assert " ".join([first[len(label) :], *others]).split() == words.split()


def test_a_trace_for_a_program_has_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(list(timeline.lines(steps())))
    assert len(lines) == 5
    assert max(map(len, lines)) > 2 * WIDTH
