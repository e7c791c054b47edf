"""The command line of `tunnel bench`: what is wrong is said before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel.cli.bench import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "zzz"], "--only zzz: unknown name; choose from tunnel ("),
        (["--only", "zzz", "--json"], "bare veth"),
        (["--peer", "/nonexistent/wg"], "--peer: /nonexistent/wg is not an executable"),
        (["--peer", "/etc/passwd"], "--peer: /etc/passwd is not an executable"),
        (
            ["--only", "veth", "--plot", "/nonexistent/x.svg"],
            "cannot write /nonexistent/x.svg: there is no folder",
        ),
        (["--only", "veth", "--plot", "/tmp"], "cannot write /tmp: Is a directory"),
        (["--rounds", "0"], "rounds"),
        (["--rows", "tcp,zzz"], "--rows tcp,zzz: unknown row zzz; choose from start, idle, tcp"),
    ],
)
def test_mistakes_are_told_at_once(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_command_line_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--only", "zzz", "--plot", str(tmp_path / "x.svg")])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
