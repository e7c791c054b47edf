"""A program that runs in a host of the lab, with its output in a file."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tunnel.lab.errors import LabError, LabTimeoutError

POLL_INTERVAL = 0.01
"""Seconds between two looks at something that gives no event."""


def wait_for(predicate: Callable[[], object], bound: float, what: str) -> None:
    """Return as soon as `predicate()` is true; LabTimeoutError naming `what` after `bound` s."""
    end = time.monotonic() + bound
    while not predicate():
        if time.monotonic() >= end:
            raise LabTimeoutError(f"{what}: not within {bound:g} s")
        time.sleep(POLL_INTERVAL)


class HostProcess:
    """A started program: `pid` is the program's own, both outputs go to `log_path`.

    Input is an empty file. The lab ends and reaps what is still running at its teardown.
    """

    def __init__(
        self,
        entered: Sequence[str],
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        log_path: Path,
    ) -> None:
        self.arguments = list(arguments)
        self.log_path = log_path
        with log_path.open("wb") as log:
            # An own session: Ctrl-C at the terminal is for the lab, which ends this in order.
            self._popen = subprocess.Popen(
                [*entered, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process ID of the program (the entering of namespaces does not fork)."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.returncode is None

    def log(self) -> str:
        """All it has printed so far."""
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Exit status; LabTimeoutError if it is still running after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabTimeoutError(
                f"{self._title()} still runs after {timeout:g} s; it printed:\n{self.log()}"
            ) from None

    def stop(self, timeout: float = 5.0) -> int:
        """End it by SIGTERM, after `timeout` seconds by SIGKILL, and reap it."""
        if self.running:
            self._popen.terminate()
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._popen.wait()

    def kill(self) -> int:
        """End it by SIGKILL and reap it."""
        self._popen.kill()
        return self._popen.wait()

    def wait_for_output(self, text: str, bound: float = 10.0) -> None:
        """Return when `text` is in the output; LabError when the program ends before."""

        def printed() -> bool:
            ended = not self.running
            if text in self.log():
                return True
            if ended:
                raise LabError(
                    f"{self._title()} ended with status {self.returncode} before it printed "
                    f"{text!r}; it printed:\n{self.log()}"
                )
            return False

        wait_for(printed, bound, f"output {text!r} of {self._title()}")

    def _title(self) -> str:
        return " ".join(self.arguments)
