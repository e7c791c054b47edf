"""The table of commands, and what each of them loads before it does anything."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.core import TyperGroup

from tunnel.cli import main

_HEAVY = frozenset({"trio", "cryptography", "pyroute2", "pydantic", "rich.table", "tunnel.host"})

_LOADED = """\
import json, sys
from tunnel.cli.main import make_app
import typer
typer.main.get_command(make_app(sys.argv[1]))
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("module", main.MODULES)
def test_the_table_names_the_commands_of_each_module(module: str) -> None:
    app = import_module(f"tunnel.cli.{module}").app
    if isinstance(app.info.name, str):
        assert main.MODULES[module] == (app.info.name,)
        return
    root = typer.Typer()
    root.callback()(lambda: None)
    root.add_typer(app)
    group = typer.main.get_command(root)
    assert isinstance(group, TyperGroup)
    assert tuple(group.commands) == main.MODULES[module]


def test_a_word_that_is_no_command_finds_all_of_them() -> None:
    everything = typer.main.get_command(main.make_app())
    other = typer.main.get_command(main.make_app("nonsense"))
    assert isinstance(everything, TyperGroup)
    assert isinstance(other, TyperGroup)
    assert list(other.commands) == list(everything.commands)
    assert list(other.commands) == [name for names in main.MODULES.values() for name in names]


@pytest.mark.parametrize(
    ("command", "may_load"),
    [("up", ()), ("down", ()), ("show", ()), ("run", ()), ("genkey", ("cryptography",))],
)
def test_what_is_called_often_loads_little(command: str, may_load: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOADED, command], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(ran.stdout))
    assert "tunnel.cli.main" in loaded
    assert loaded & _HEAVY <= set(may_load)
