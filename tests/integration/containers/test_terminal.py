"""`tunnel run` at a terminal: ^C, ^Z, fg and bg, as a shell with job control has them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.runs import Near, near

pytestmark = [pytest.mark.root]

BOUND = 20.0
PROMPT = "next> "


class Terminal:
    """An interactive shell in a terminal of its own; what is typed, and what is printed."""

    def __init__(self, run: Near) -> None:
        self._master, slave = pty.openpty()
        shell = run.as_caller(["bash", "--norc", "--noediting", "-i", "-b"])
        self._shell = subprocess.Popen(
            [*run.hosts.a.enter_command(), "setsid", "--ctty", *shell],
            env={**os.environ, **run.environment, "PS1": PROMPT, "HISTFILE": ""},
            cwd=Path.cwd(),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._printed = ""
        self._place = 0

    def enter(self, text: str) -> None:
        """Type text; a control character is one key."""
        os.write(self._master, text.encode())

    def command(self, line: str) -> None:
        """Type a line once the shell asks for one: what comes earlier may be thrown away."""
        self.wait_for(PROMPT)
        self.enter(f"{line}\n")

    def status(self) -> int:
        """The exit status of the last command."""
        self.command("echo status=$?=")
        # Its echo has no number.
        while not (word := self._word_after("status=")).isdigit():
            pass
        return int(word)

    def _word_after(self, text: str) -> str:
        self.wait_for(text)
        start = self._place
        self.wait_for("=")
        return self._printed[start : self._place - 1]

    def wait_for(self, text: str) -> None:
        """Return when `text` has been printed since what was waited for last."""
        end = time.monotonic() + BOUND
        while (place := self._printed.find(text, self._place)) < 0:
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self._printed!r}"
            self._printed += os.read(self._master, 4096).decode()
        self._place = place + len(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Hangs up, which ends the shell and its jobs.
        os.close(self._master)
        self._shell.wait(BOUND)


@pytest.fixture(params=["root", pytest.param("user", marks=pytest.mark.real_root)])
def run(request: pytest.FixtureRequest) -> Iterator[Near]:
    with near(as_user=request.param == "user") as made:
        yield made


def test_job_control_is_that_of_a_command_run_directly(run: Near) -> None:
    tunnelled = f"{sys.executable} -m tunnel run {run.conf} --"
    inner = "sh -c 'echo in$((40+2)); while read -r line; do echo heard-$line; done; exit 7'"
    with Terminal(run) as terminal:
        terminal.command(f"{tunnelled} {inner}")
        terminal.wait_for("in42")
        terminal.enter("one\n")
        terminal.wait_for("heard-one")
        # ^Z gives the terminal back to the shell, which knows the job as stopped.
        terminal.enter("\x1a")
        terminal.wait_for("Stopped")
        assert terminal.status() == 148
        # A job in the background that reads from the terminal is stopped again.
        terminal.command("bg")
        terminal.wait_for("Stopped")
        terminal.enter("\n")
        terminal.command("fg")
        terminal.wait_for(inner)
        terminal.enter("two\n")
        terminal.wait_for("heard-two")
        # ^D is the end of its input.
        terminal.enter("\x04")
        assert terminal.status() == 7
        # ^C ends the command, and the shell goes on.
        terminal.command(f"{tunnelled} sh -c 'echo in$((41+2)); exec cat'")
        terminal.wait_for("in43")
        terminal.enter("\x03")
        assert terminal.status() == 130
        # A shell of its own inside has job control, too.
        terminal.command(f"{tunnelled} bash --norc --noediting -i")
        terminal.command("sh -c 'echo in$((42+2)); read line; exit 3'")
        terminal.wait_for("in44")
        terminal.enter("\x1a")
        terminal.wait_for("Stopped")
        assert terminal.status() == 148
        terminal.command("fg")
        terminal.enter("\n")
        assert terminal.status() == 3
        terminal.command("exit 5")
        assert terminal.status() == 5
        # The terminal is closed under a running command.
        terminal.command(f"{tunnelled} sh -c 'echo in$((43+2)); exec cat'")
        terminal.wait_for("in45")
    run.hosts.a.wait_for(lambda: not run.leftovers(), 10, "the end of everything")
