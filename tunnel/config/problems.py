"""How a mistake in a conf is told: its place, what stands there, what should, and the remedy.

Nothing secret passes through here: values of key lines are described by their length, and
whatever else looks like a key is described too, since keys end up in the wrong place.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tunnel.errors import TunnelError

__all__ = ["ConfigErrors", "Mistake", "Problem", "Problems", "describe_secret", "quote"]

REPORTED_PROBLEMS: Final = 100
"""Mistakes kept of one conf; the rest is only counted, for nobody reads on."""

_LONGEST_QUOTE: Final = 80
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9+/]{40,}|[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake (or, among the warnings, one doubt).

    `line` counts from 1 and is None when no line is to blame, `key` is the key as the manual
    spells it, or empty when the whole file is meant. `found` never shows a secret.
    """

    file: str
    line: int | None
    key: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        what = f"found {self.found}, expected {self.expected}; {self.remedy}"
        return f"{place}: {self.key}: {what}" if self.key else f"{place}: {what}"


class ConfigErrors(TunnelError):  # noqa: N818  # it carries many
    """Everything that is wrong with a conf, in the order of its lines.

    `problems` holds at most REPORTED_PROBLEMS of them and `more` says how many others there
    are. `str()` prints one a line.
    """

    code = "conf"

    def __init__(self, problems: Iterable[Problem], *, more: int = 0) -> None:
        self.problems = list(problems)
        self.more = more
        super().__init__(self.problems, more)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if self.more:
            lines.append(f"… and {self.more} more")
        return "\n".join(lines)


class Mistake(TunnelError):  # noqa: N818  # never leaves the package
    """What a value parser raises: all of a Problem but its place."""

    code = "value"

    def __init__(self, expected: str, remedy: str, *, found: str | None = None) -> None:
        self.expected = expected
        self.remedy = remedy
        self.found = found
        super().__init__(expected)


class Problems:
    """Collects mistakes and warnings of one conf while it is read."""

    def __init__(self, file: str) -> None:
        self.file = quote_name(file)
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._errors = 0
        self._warnings = 0

    def error(self, line: int | None, key: str, found: str, expected: str, remedy: str) -> None:
        """Add a mistake: the conf will be refused."""
        self._errors += 1
        if len(self.errors) < REPORTED_PROBLEMS:
            self.errors.append(Problem(self.file, line, key, found, expected, remedy))

    def warning(self, line: int | None, key: str, found: str, expected: str, remedy: str) -> None:
        """Add a doubt: the conf is taken all the same."""
        self._warnings += 1
        if len(self.warnings) < REPORTED_PROBLEMS:
            self.warnings.append(Problem(self.file, line, key, found, expected, remedy))

    def raise_if_any(self) -> None:
        """Raise ConfigErrors if there was a mistake."""
        if self.errors:
            raise ConfigErrors(
                sorted(self.errors, key=_by_line), more=self._errors - len(self.errors)
            )

    def all_warnings(self) -> tuple[Problem, ...]:
        """Return the warnings in the order of their lines."""
        return tuple(sorted(self.warnings, key=_by_line))


def _by_line(problem: Problem) -> int:
    return problem.line or 0


def escape(text: str) -> str:
    """Spell control characters, and whatever else moves a cursor, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def quote_name(text: str) -> str:
    """Make a file's name fit to be printed in a message."""
    return escape(text)


def quote(text: str) -> str:
    """Quote a value for a message: escaped, shortened, and not at all if it looks like a key."""
    if _KEY_LIKE.search(text):
        return f"{len(text)} characters that look like a key (not shown)"
    short = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
    return f'"{escape(short)}"' if text else "nothing"


def describe_secret(text: str) -> str:
    """Describe the value of a key line without showing any of it."""
    if not text:
        return "nothing"
    return f"{len(text)} character{'' if len(text) == 1 else 's'} (not shown)"
