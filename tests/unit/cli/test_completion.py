"""What a shell is offered for the last word of a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.cli import main
from tunnel.cli.completion import candidates
from tunnel.cli.fields import FIELDS
from tunnel.config.files import ENVIRONMENT
from tunnel.control import run_folder


@pytest.fixture(autouse=True)
def confs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    for name in ("office.conf", "home.conf", "notes.txt"):
        (folder / name).touch()
    (folder / "more").mkdir()
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    monkeypatch.setattr(run_folder, "running_names", lambda: ["wg0", "wg1"])
    here = tmp_path / "here"
    here.mkdir()
    (here / "local.conf").touch()
    monkeypatch.chdir(here)
    return folder


def of(line: str) -> list[str]:
    return candidates(line.split(" "))


def test_commands() -> None:
    assert of("") == sorted(name for _, rows in main.GROUPS for names, _ in rows for name in names)
    assert of("re") == ["reload", "restart"]
    assert of("help tr") == ["trace"]
    assert of("service ") == ["install", "show", "uninstall"]
    assert of("help service i") == ["install"]


def test_options_and_their_values() -> None:
    assert of("up --f") == ["--foreground"]
    assert of("--v") == ["--version"]
    assert "bridge" in of("lab --topology ")
    assert set(of("show -")) >= {"--json", "--secrets", "--all", "-a", "--watch", "-w", "--help"}
    assert of("doctor --inside") == [], "a hidden one"
    assert of("trace --svg ") == [], "a file: the shell's own"


def test_names_of_interfaces_and_fields() -> None:
    assert of("show ") == ["wg0", "wg1"]
    assert of("show wg0 ") == sorted(FIELDS)
    assert of("show --json wg") == ["wg0", "wg1"]
    assert of("show wg0 dump ") == []


def test_confs_by_name_and_by_path(confs: Path) -> None:
    assert of("up ") == ["home", "local.conf", "office", "wg0", "wg1"]
    assert of("up --foreground of") == ["office"]
    assert of(f"up {confs}/") == [f"{confs}/home.conf", f"{confs}/more/", f"{confs}/office.conf"]
    assert of("up ./") == ["./local.conf"]
    assert of(f"up {confs}/nothing/") == []


@pytest.mark.parametrize(
    "line", ["nonsense ", "nonsense x", "run office -- l", "genkey ", "help -"]
)
def test_nothing_of_ours_leaves_the_word_to_the_shell(line: str) -> None:
    assert of(line) == []


def test_a_word_of_a_command_is_found_without_loading_commands() -> None:
    code = "import sys\nfrom tunnel.cli.completion import candidates\ncandidates(['sh'])\n"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(ran.stdout.split()) & {"tunnel.cli.life", "trio", "cryptography"}
