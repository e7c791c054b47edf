"""The log: one line per event, whoever reads it, and nothing in it that could deceive or betray.

Three forms of a line: for people (local time, level, text), for the journal (`<N>` before the
text, as sd-daemon(3) has it; the journal knows the time), for programs (one JSON object). In each
of them control characters are escaped, for texts may come from a peer's name, a hook or a file,
and key material is hidden even if somebody hands it to the log by mistake.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Container, Iterable, Mapping
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from tunnel.log.key_memory import KeyMemory
from tunnel.log.writer import WriterHandler

LOG_BYTES = 1 << 20
"""Size at which a log file becomes NAME.log.1, and the one before it goes."""

MAX_TEXT = 8192
"""Characters of one line; longer texts are cut, and say so."""

HIDDEN = "(hidden)"

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Levels of syslog(3), from the worst down; below all of them is debug, 7."""

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}

# A private or preshared key's name, a separator, and 32 bytes in base64 or hex. Public keys have
# the same form, and are no secret: what tells them apart is the name before them.
_NAMED_KEY = re.compile(
    r"((?:private|preshared|pre-shared|psk|secret)[^\n]{0,12}?[\s:='\"]+)"
    r"(?:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|[0-9A-Fa-f]{64})",
    re.IGNORECASE,
)

_ANY_KEY = re.compile(r"[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64}")

# Without its `=`, as when a shell puts that elsewhere, a key must be a word of its own: there are
# paths of that length.
_KEY_WORD = re.compile(
    _ANY_KEY.pattern + r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048](?![A-Za-z0-9+/])"
)

# Programs that change keys every minute must not fill the memory. Apart, so that however many
# preshared keys there are, the interface's own key stays.
_private = KeyMemory()
_preshared = KeyMemory()


def hide(secrets: Iterable[bytes], *, private: bool = False) -> None:
    """Never let these keys (32 bytes each) into the log of this process, as base64 or as hex.

    With `private` they are private keys, else preshared ones. Of each kind the last million told
    are remembered; beyond 65,536 a public key may be taken for one, once in some thousand times.
    """
    known = _private if private else _preshared
    for secret in secrets:
        known.add(bytes(secret))


def printable(text: str) -> str:
    r"""`text` without anything that a terminal acts upon, or that ends a line.

    Control characters, line separators, and marks that turn the direction of writing become
    `\x1b` or `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def redact(text: str) -> str:
    """`text` with key material hidden: secrets told to `hide`, and what is named like one."""
    text = _ANY_KEY.sub(_hidden_if_secret, text)
    return _NAMED_KEY.sub(rf"\g<1>{HIDDEN}", text)


def redact_keys(text: str, public: Container[bytes]) -> str:
    """`text` with all hidden that looks like a key, but for the `public` ones (32 bytes each).

    For what others wrote, such as a shell command: nothing there tells one kind from another.
    """
    return _KEY_WORD.sub(lambda match: match[0] if _key_in(match) in public else HIDDEN, text)


def _hidden_if_secret(match: re.Match[str]) -> str:
    key = _key_in(match)
    return HIDDEN if key in _private or key in _preshared else match[0]


def _key_in(match: re.Match[str]) -> bytes:
    found = match[0]
    if len(found) == 64:
        return bytes.fromhex(found)
    return binascii.a2b_base64(found if found[-1] == "=" else f"{found}=")


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
    """Log to standard error (or `stream`), in the form that fits whoever reads it."""
    stream = stream or sys.stderr
    formatter: LineFormatter
    if as_json:
        formatter = JsonFormatter(for_journal=goes_to_journal(stream))
    elif goes_to_journal(stream):
        formatter = JournalFormatter()
    else:
        formatter = HumanFormatter(colours=stream.isatty() and "NO_COLOR" not in os.environ)
    _install(_stream_handler(stream), formatter, verbose=verbose)


def log_to_file(path: Path, *, verbose: bool = False, as_json: bool = False) -> None:
    """Log to `path`, kept below LOG_BYTES, with one older file beside it; for the owner only."""
    handler = _PrivateFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    _install(handler, JsonFormatter() if as_json else HumanFormatter(), verbose=verbose)


def flush() -> None:
    """Wait until all that was logged is written, unless its reader is stuck."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _PrivateFileHandler(RotatingFileHandler):
    """Whatever the umask: a log has endpoints, commands and what they print."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_opener)


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    # It may be there already, from a time when it was for everybody.
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o600)
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
    # Of other libraries we want to hear what is wrong, not what they are doing.
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
