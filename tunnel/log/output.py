"""Where the log goes, and the form of its lines: one per event, without key material.

There are three forms: for people (local time, level, text), for the journal (`<N>` before the text,
as in sd-daemon(3); the journal adds the time), for programs (one JSON object).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Mapping
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from tunnel.linux.files import open_plain
from tunnel.log.redact import printable, redact
from tunnel.log.writer import WriterHandler

LOG_BYTES = 1 << 20
"""Size at which a log file becomes NAME.log.1, replacing the previous one."""

MAX_TEXT = 8192
"""Characters of one line; longer texts are cut, and say so."""

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Levels of syslog(3), from the worst down; below all of them is debug, 7."""

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


class LineFormatter(logging.Formatter):
    """What the forms have in common: the text, safe to print, and a traceback as lines."""

    def text(self, record: logging.LogRecord) -> str:
        """The message, without secrets, of bounded length; not escaped yet."""
        if isinstance(record.args, tuple):
            # Raw bytes are never worth a line, and may be a key.
            args = tuple(_without_bytes(arg) for arg in record.args)
            try:
                message = str(record.msg) % args if args else str(record.msg)
            except (TypeError, ValueError):
                message = str(record.msg)
        else:
            message = record.getMessage()
        return _bounded(redact(message))

    def traceback(self, record: logging.LogRecord) -> list[str]:
        """The lines of the traceback, without secrets; none if the record has no exception."""
        if not record.exc_info or record.exc_info[0] is None:
            return []
        return redact(self.formatException(record.exc_info)).splitlines()


class HumanFormatter(LineFormatter):
    """`2026-11-24 11:22:29 warning: text`, in local time. A traceback is indented below it."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line, ended by the handler."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        colour = _COLOURS.get(record.levelno) if self._colours else None
        if colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        first = f"{clock} {level}: {printable(self.text(record))}"
        return "\n    ".join([first, *map(printable, self.traceback(record))])


class JournalFormatter(LineFormatter):
    """`<4>text`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, ended by the handler."""
        parts = [self.text(record), *map(str.strip, self.traceback(record))]
        return f"<{priority(record.levelno)}>{printable(' | '.join(parts))}"


class JsonFormatter(LineFormatter):
    """`{"time": 1795519349.123, "level": "warning", "text": "…"}`; time in Unix seconds.

    A traceback is in `"traceback"`, a list of lines. With `for_journal`, `<4>` comes before it.
    """

    def __init__(self, *, for_journal: bool = False) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, ended by the handler."""
        document: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "text": self.text(record),
        }
        traceback = self.traceback(record)
        if traceback:
            document["traceback"] = traceback
        # DEL is the one control character that JSON lets pass.
        line = json.dumps(document).replace("\x7f", "\\u007f")
        return f"<{priority(record.levelno)}>{line}" if self._for_journal else line


def priority(level: int) -> int:
    """The number that the journal knows a level of `logging` by."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def goes_to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `stream` is the one that systemd connected to the journal ($JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def log_to_stream(
    stream: TextIO | None = None, *, verbose: bool = False, as_json: bool = False
) -> None:
    """Log to standard error (or `stream`), in the form that fits its reader."""
    stream = stream or sys.stderr
    formatter: LineFormatter
    if as_json:
        formatter = JsonFormatter(for_journal=goes_to_journal(stream))
    elif goes_to_journal(stream):
        formatter = JournalFormatter()
    else:
        formatter = HumanFormatter(colours=stream.isatty() and "NO_COLOR" not in os.environ)
    _install(_stream_handler(stream), formatter, verbose=verbose)


def log_to_file(
    path: Path, *, verbose: bool = False, as_json: bool = False, with_stderr: bool = False
) -> None:
    """Log to `path`, kept below LOG_BYTES, with one older file beside it; for the owner only.

    `with_stderr` is for a daemon: descriptor 2 is that file too, whichever it is at the time, for
    what Python itself has to say, such as a traceback. Raises OSError, also if `path` is no plain
    file or a symbolic link.
    """
    handler = _PrivateFileHandler(path, with_stderr=with_stderr)
    _install(handler, JsonFormatter() if as_json else HumanFormatter(), verbose=verbose)


def flush() -> None:
    """Wait until all that was logged is written, unless its reader is stuck or its disk full."""
    for handler in logging.getLogger().handlers:
        # What a full disk did not take is in the file's buffer still, and fails again.
        with contextlib.suppress(OSError):
            handler.flush()


class _PrivateFileHandler(RotatingFileHandler):
    """Whatever the umask: a log has endpoints, commands and what they print."""

    def __init__(self, path: Path, *, with_stderr: bool) -> None:
        self._with_stderr = with_stderr
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=self._opener)

    def _opener(self, path: str, flags: int) -> int:
        descriptor = open_plain(path, flags)
        # It may exist already, with a mode that lets others read it.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o600)
        if self._with_stderr:
            os.dup2(descriptor, 2)
        return descriptor


def _stream_handler(stream: TextIO) -> logging.Handler:
    try:
        descriptor = stream.fileno()
        has_reader = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):
        has_reader = False
    return WriterHandler(descriptor) if has_reader else logging.StreamHandler(stream)


def _install(handler: logging.Handler, formatter: LineFormatter, *, verbose: bool) -> None:
    # A full disk or a closed terminal costs messages, never the tunnel.
    logging.raiseExceptions = False
    handler.setFormatter(formatter)
    # Of other libraries only warnings and errors are logged.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tunnel").setLevel(logging.DEBUG if verbose else logging.INFO)


def _without_bytes(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"
    return value


def _bounded(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} characters more)"
