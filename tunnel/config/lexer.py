"""A conf as a list of lines that mean something: headers, entries, and what is neither.

The rules are those of `wg` and wg-quick: a line is `Key = value`, names of sections and keys
know no case and no white space, `#` starts a comment except in a hook, whose value belongs to
the shell. A comment `#! tunnel: Key = value` is an entry of section [Tunnel] that stock
wg-quick does not see.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

__all__ = ["HOOKS", "Kind", "Token", "squeeze", "tokenize"]

HOOKS: Final = frozenset({"preup", "postup", "predown", "postdown"})

_FRIENDLY: Final = re.compile(r"\s*#\s*friendly_name\s*=", re.IGNORECASE)
_MARKED: Final = re.compile(r"\s*#!\s*tunnel\b\s*:?", re.IGNORECASE)


class Kind(Enum):
    """What a line is."""

    HEADER = auto()
    """`[Name]`: `name` is the text squeezed, brackets included, `value` is empty."""
    ENTRY = auto()
    """`Key = value` under the header before it."""
    MARKED = auto()
    """`#! tunnel: Key = value`: an entry of [Tunnel] wherever it stands."""
    FRIENDLY_NAME = auto()
    """`# friendly_name = text`: a comment that exporters of metrics read."""
    NOISE = auto()
    """Text without `=`: a mistake."""
    BROKEN_MARK = auto()
    """A `#! tunnel` line without a colon or an `=`: a mistake."""


class Token(NamedTuple):
    """One line that is neither empty nor a plain comment.

    `line` counts from 1; `name` is the key as written (without white space); the value is
    `text[start:end]` of that line, so that it can be replaced where it stands.
    """

    kind: Kind
    line: int
    name: str
    value: str
    start: int = 0
    end: int = 0


def squeeze(text: str) -> str:
    """Drop all white space, as `wg` does before it looks at a line."""
    return "".join(text.split())


def tokenize(text: str) -> list[Token]:
    """Split `text` into tokens. Never fails; mistakes are tokens too."""
    tokens = []
    for number, line in enumerate(text.split("\n"), 1):
        token = _tokenize_line(number, line)
        if token is not None:
            tokens.append(token)
    return tokens


def _tokenize_line(number: int, line: str) -> Token | None:
    before, equals, _ = line.partition("=")
    if equals and "#" not in before:
        name = squeeze(before)
        if not name.startswith("["):
            start = len(before) + 1
            hash_at = -1 if name.lower() in HOOKS else line.find("#", start)
            return _entry(Kind.ENTRY, number, name, line, start, hash_at)
    marked = _MARKED.match(line)
    if marked is not None:
        if not marked.group().endswith(":"):
            # `#! tunnels are fine` is talk, `#! tunnel Datapath = native` is a slip.
            return Token(Kind.BROKEN_MARK, number, "", "") if equals else None
        key, equals, _ = line[marked.end() :].partition("=")
        if not equals or "#" in key:
            return Token(Kind.BROKEN_MARK, number, "", "")
        start = marked.end() + len(key) + 1
        hash_at = line.find("#", start)
        return _entry(Kind.MARKED, number, squeeze(key), line, start, hash_at)
    friendly = _FRIENDLY.match(line)
    if friendly is not None:
        return _entry(Kind.FRIENDLY_NAME, number, "", line, friendly.end(), -1)
    content = squeeze(line.partition("#")[0])
    if not content:
        return None
    return Token(Kind.HEADER if content.startswith("[") else Kind.NOISE, number, content, "")


def _entry(kind: Kind, number: int, name: str, line: str, start: int, hash_at: int) -> Token:
    end = len(line) if hash_at < 0 else hash_at
    raw = line[start:end]
    value = raw.strip()
    if value:
        start += len(raw) - len(raw.lstrip())
        end = start + len(value)
    else:
        end = start
    return Token(kind, number, name, value, start, end)
