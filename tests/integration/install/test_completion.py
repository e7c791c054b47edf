"""Completions in the real shells: a line is typed, the Tab key pressed, and the line read back."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunnel.cli.completion import SCRIPTS, Shell
from tunnel.config.files import ENVIRONMENT

PATIENCE = 60.0
"""Seconds for an answer; on a busy machine a shell takes its time."""

WORDS_ONLY = """\
tunnel() { [ "$1" = complete-words ] && command tunnel "$@" || echo "completed:" "$@"; }"""
"""Has a shell print a completed line and not run it."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "office.conf").touch()
    for shell, script in SCRIPTS.items():
        (tmp_path / f"script.{shell}").write_text(script)
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        ENVIRONMENT: str(tmp_path),
    }


class Terminal:
    """A terminal in which a shell runs."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until it is shown; what came before is forgotten."""
        ends = time.monotonic() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self._descriptor], [], [], ends - time.monotonic())
            assert ready, f"{text!r} is not in {self.shown!r}"
            self.shown += os.read(self._descriptor, 4096).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]


@contextmanager
def terminal(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    ours, its = pty.openpty()
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    ) as shell:
        os.close(its)
        try:
            yield Terminal(ours)
        finally:
            shell.kill()
            os.close(ours)


@pytest.mark.foreign("bash")
@pytest.mark.foreign("zsh")
@pytest.mark.parametrize(
    ("shell", "command", "prepare"),
    [
        (Shell.BASH, ["bash", "--norc", "-i"], "source ~/script.bash"),
        (Shell.ZSH, ["zsh", "-f", "-i"], "autoload -U compinit; compinit -D -u; . ~/script.zsh"),
    ],
    ids=str,
)
def test_the_tab_key(
    shell: Shell, command: list[str], prepare: str, environment: dict[str, str]
) -> None:
    with terminal(command, environment) as screen:
        # No echo of what is typed has the text that is waited for.
        screen.type(f"{prepare}; {WORDS_ONLY}; echo re''ady\n")
        screen.wait_for("ready")
        for typed, completed in [
            ("resta", "restart"),
            ("show --sec", "show --secrets"),
            ("up off", "up office"),
            ("completion z", "completion zsh"),
        ]:
            screen.type(f"tunnel {typed}\t\n")
            screen.wait_for(f"completed: {completed}\r\n")


@pytest.mark.foreign("fish")
def test_fish(environment: dict[str, str], tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        script = f"source ~/script.fish; complete --do-complete '{line}'"
        ran = subprocess.run(
            ["fish", "--no-config", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.split()

    assert completed("tunnel resta") == ["restart"]
    assert completed("tunnel show --sec") == ["--secrets"]
    assert completed("tunnel up off") == ["office"]
    assert completed("tunnel completion ") == ["bash", "fish", "zsh"]
    assert completed(f"tunnel trace --svg {tmp_path}/script.f") == [f"{tmp_path}/script.fish"]
