"""A daemon whose garbage collector is watched, from outside."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from tunnel.lab import Host


class Watched:
    """`tunnel up --foreground` of `conf` in `host`, run by watched_program.py."""

    def __init__(self, host: Host, conf: Path) -> None:
        self._host = host
        self._file = host.directory / "watched.json"
        program = [sys.executable, "-m", "tests.support.watched_program", str(self._file)]
        self._process = host.popen([*program, "up", "--foreground", str(conf)])
        self._process.wait_for_output("wg0 is up", 30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def pauses(self) -> dict[str, Any]:
        """What the collector did since the last time that this was asked."""
        found: dict[str, Any] = self._ask(signal.SIGUSR1)
        return found

    def garbage(self) -> dict[str, int]:
        """Unreachable objects since the last time, by type; from the first time on all are kept."""
        found: dict[str, int] = self._ask(signal.SIGUSR2)
        return found

    def log(self) -> str:
        """What the daemon has printed."""
        return self._process.log()

    def stop(self) -> None:
        self._process.stop(15)

    def _ask(self, number: signal.Signals) -> Any:
        self._file.unlink(missing_ok=True)
        self._process.signal(number)
        self._host.wait_for(self._file.exists, 30, "the watched daemon to answer")
        return json.loads(self._file.read_text())
