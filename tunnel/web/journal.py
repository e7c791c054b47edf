"""Who connected when, and what was changed by whom: the newest entries, kept in a file."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from pathlib import Path
from typing import Final

from tunnel.linux.files import append_whole, read_plain
from tunnel.web.errors import WebError
from tunnel.web.messages import Log, LogEntry
from tunnel.web.schema import read_untrusted

KEPT: Final = 500
"""Entries in memory, which the page shows."""

FILE_BYTES: Final = 1 << 20
"""At this size the file becomes NAME.log.1, in place of the one before."""


class Journal:
    """The log of a page in a file of one JSON object a line. It never fails: `problem` says why
    entries are not kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: deque[LogEntry] = deque(maxlen=KEPT)
        self._problem = ""
        self.changes = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for line in read_plain(path).splitlines()[-KEPT:]:
                self._remember(line)
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            self._failed(error)

    def add(self, entry: LogEntry) -> None:
        """Take an entry."""
        self._entries.append(entry)
        self.changes += 1
        line = json.dumps(entry.to_json()) + "\n"
        try:
            if append_whole(self._path, line.encode()) > FILE_BYTES:
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
            self._problem = ""
        except OSError as error:
            self._failed(error)

    def connected(self) -> dict[str, str]:
        """The peers that came and did not go, as far as is known, and where each of them was."""
        found: dict[str, str] = {}
        for entry in self._entries:
            if entry.kind in ("connected", "moved"):
                found[entry.peer] = entry.address
            elif entry.kind == "disconnected":
                found.pop(entry.peer, None)
        return found

    def newest(self) -> Log:
        """What the page shows."""
        return Log(tuple(reversed(self._entries)), self._problem)

    def _remember(self, line: str) -> None:
        # A line that a full disk cut off is left out.
        with contextlib.suppress(WebError):
            self._entries.append(read_untrusted(LogEntry, line.encode()))

    def _failed(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else error
        self._problem = f"entries are not kept: {self._path}: {reason}"
