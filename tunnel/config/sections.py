"""Tokens sorted under their sections; lines that belong nowhere are refused with a hint."""

import difflib
import re
from functools import lru_cache
from typing import Final, NamedTuple

from tunnel.config.keys import KEYS, SPELLING, Section
from tunnel.config.lexer import Kind, Token
from tunnel.config.problems import Problems, quote

__all__ = ["Group", "Sections", "Value", "sort"]

_SHOWABLE_KEY: Final = re.compile(r"[A-Za-z_-]{1,32}")


class Value(NamedTuple):
    """A value and the line it stands on."""

    line: int
    text: str


class Group:
    """The entries of one section: key in lower case to its values in order.

    `friendly_name` is what a comment of it says.
    """

    def __init__(self, section: Section, line: int | None) -> None:
        self.section = section
        self.line = line
        self.values: dict[str, list[Value]] = {}
        self.friendly_name = ""

    def get(self, key: str) -> list[Value]:
        """Return the values of `key` in order, none if it is not there."""
        return self.values.get(key, [])


class Sections:
    """A whole conf: repeated [Interface] and [Tunnel] are one, every [Peer] is its own."""

    def __init__(self) -> None:
        self.interface = Group("interface", None)
        self.tunnel = Group("tunnel", None)
        self.peers: list[Group] = []


def sort(tokens: list[Token], problems: Problems) -> Sections:
    """Put every entry under its section."""
    sections = Sections()
    group: Group | None = None
    unknown = False  # the keys of a section that was refused are not refused once more
    for token in tokens:
        match token.kind:
            case Kind.HEADER:
                group = _open(token, sections, problems)
                unknown = group is None
            case Kind.FRIENDLY_NAME:
                if group is not None:
                    group.friendly_name = token.value
            case Kind.MARKED:
                _place(token, sections.tunnel, problems)
            case Kind.ENTRY:
                if group is not None:
                    _place(token, group, problems)
                elif not unknown:
                    problems.error(
                        token.line,
                        _shown(token.name),
                        "a key before the first section",
                        "a section such as [Interface] above it",
                        "put [Interface] or [Peer] on a line of its own above",
                    )
            case Kind.NOISE:
                problems.error(
                    token.line,
                    "",
                    "a line without '=' (not shown)",
                    "Key = value, [Section] or # comment",
                    "add what is missing, or put # in front",
                )
            case Kind.BROKEN_MARK:
                problems.error(
                    token.line,
                    "#! tunnel",
                    "a line of another form",
                    '"#! tunnel: Key = value"',
                    "write it so, or as a comment without '!'",
                )
    return sections


def _open(token: Token, sections: Sections, problems: Problems) -> Group | None:
    match token.name.lower():
        case "[interface]":
            sections.interface.line = sections.interface.line or token.line
            return sections.interface
        case "[tunnel]":
            return sections.tunnel
        case "[peer]":
            sections.peers.append(Group("peer", token.line))
            return sections.peers[-1]
    closest = _closest(token.name.strip("[]").lower(), ("interface", "peer", "tunnel"))
    problems.error(
        token.line,
        "",
        f"section {quote(token.name)}",
        "[Interface], [Peer] or [Tunnel]",
        f"did you mean [{closest.title()}]?" if closest else "check the spelling",
    )
    return None


def _place(token: Token, group: Group, problems: Problems) -> None:
    key = token.name.lower()
    if key in KEYS[group.section]:
        group.values.setdefault(key, []).append(Value(token.line, token.value))
        return
    here = group.section.title()
    home = next((section.title() for section in KEYS if key in KEYS[section]), None)
    if home is not None:
        found = f"a key of [{home}] under [{here}]"
        remedy = f"move the line under [{home}]"
    else:
        found = "a key that does not exist"
        closest = _closest(key, tuple(sorted(KEYS[group.section])))
        if closest is not None:
            remedy = f"did you mean {SPELLING[closest]}?"
        else:
            remedy = "check the spelling, or put # in front"
    shown = SPELLING.get(key) or _shown(token.name)
    problems.error(token.line, shown, found, f"a key of [{here}]", remedy)


def _shown(name: str) -> str:
    """Name an unknown key in a message; a stray secret ending in '=' must not be its own name."""
    return name if _SHOWABLE_KEY.fullmatch(name) else "(a key of unusual form, not shown)"


@lru_cache(maxsize=1024)
def _closest(name: str, candidates: tuple[str, ...]) -> str | None:
    if len(name) > 32:
        return None
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return found[0] if found else None
