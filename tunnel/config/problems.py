"""What is wrong with a conf: the place, a sentence that says it, and the remedy.

No secret passes through here: values of key lines are described by their length, and any other
text that looks like a key is described too, since keys end up in the wrong place.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tunnel.errors import TunnelError

__all__ = ["ConfigErrors", "Mistake", "Problem", "Problems", "describe_secret", "escape", "quote"]

REPORTED_PROBLEMS: Final = 100
"""Errors kept of one conf; the others are only counted, since no one reads on."""

_LONGEST_QUOTE: Final = 80
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9+/]{40,}|[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning.

    `line` counts from 1 and is None when no line is to blame; `key` is the key as the manual
    spells it, or empty when none is to blame. `fault` is a sentence that names what was found and
    what is expected, and never shows a secret; `remedy` says what to do.
    """

    file: str
    line: int | None
    key: str
    fault: str
    remedy: str

    @property
    def place(self) -> str:
        """FILE or FILE:LINE."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.fault}; {self.remedy}"


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


class Mistake(Exception):  # noqa: N818  # never leaves the package
    """A fault whose place the raiser does not know; its catcher makes a Problem of it.

    `fault` lacks its subject: `must be true or false, not "1"`.
    """

    def __init__(self, fault: str, remedy: str) -> None:
        self.fault = fault
        self.remedy = remedy
        super().__init__(fault)


class Problems:
    """Collects the errors and warnings of one conf while it is read."""

    def __init__(self, file: str) -> None:
        self.file = escape(file)
        self.warnings: list[Problem] = []
        self._errors: list[Problem] = []
        self._more = 0

    def error(self, line: int | None, key: str, fault: str, remedy: str) -> None:
        """Add an error: the conf will be refused."""
        if len(self._errors) < REPORTED_PROBLEMS:
            self._errors.append(Problem(self.file, line, key, fault, remedy))
        else:
            self._more += 1

    def warning(self, line: int | None, key: str, fault: str, remedy: str) -> None:
        """Add a warning: the conf is accepted anyway."""
        if len(self.warnings) < REPORTED_PROBLEMS:
            self.warnings.append(Problem(self.file, line, key, fault, remedy))

    def failure(self) -> ConfigErrors:
        """The errors so far, as the exception to raise."""
        return ConfigErrors(sorted(self._errors, key=_by_line), more=self._more)

    def raise_if_any(self) -> None:
        """Raise ConfigErrors if there was an error."""
        if self._errors:
            raise self.failure()

    def all_warnings(self) -> tuple[Problem, ...]:
        """Return the warnings in the order of their lines."""
        return tuple(sorted(self.warnings, key=_by_line))


def _by_line(problem: Problem) -> int:
    return problem.line or 0


def escape(text: str) -> str:
    """Spell control characters, and anything else that moves a cursor, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def quote(text: str) -> str:
    """Quote a value for a message: escaped, shortened, and not at all if it looks like a key."""
    if _KEY_LIKE.search(text):
        return f"{len(text)} characters that look like a key (not shown)"
    short = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
    return f'"{escape(short)}"'


def describe_secret(text: str) -> str:
    """Describe the value of a key line without showing any of it."""
    return f"{len(text)} character{'' if len(text) == 1 else 's'} (not shown)"
