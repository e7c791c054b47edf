"""A conf as lines that mean something, sorted under their sections.

The rules are those of `wg` and wg-quick: a line is `Key = value`, names of sections and keys
know no case and no white space, `#` starts a comment except in a hook, whose value belongs to
the shell. A comment `#! tunnel: Key = value` is an entry of section [Tunnel] that stock
wg-quick does not see.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from tunnel.config.keys import ConfKey, closest, keys_of, whole_line
from tunnel.config.lookalikes import COMMENT, foreign_key, foreign_mark
from tunnel.config.model import SECTIONS
from tunnel.config.problems import Problems, quote
from tunnel.config.values import is_continued, squeeze

__all__ = ["HOOKS", "Entry", "Kind", "SectionLines", "Sections", "Token", "sort", "tokenize"]

HOOKS: Final = frozenset(
    name
    for section in SECTIONS.values()
    for name, key in keys_of(section).items()
    if key.split is whole_line
)
"""The keys, in lower case, whose value is a shell command."""

_SHOWABLE_KEY: Final = re.compile(r"[A-Za-z_-]{1,32}|[A-Za-z]{1,5}[0-9]")

_LONGEST_KEY: Final = 40
_VALUE: Final = re.compile(r"[:\d\[]|[A-Za-z0-9+/]{43}")
_KEY_OR_COLON: Final = re.compile(r":|[A-Za-z0-9+/]{43}")
"""How a value begins, without the white space before it."""

_NAMED_HEADER: Final = re.compile(r"\[(peer|interface)[^s\]].*", re.IGNORECASE)
_NETWORKD: Final = {"[wireguardpeer": "Peer", "[wireguard": "Interface"}

_FRIENDLY: Final = re.compile(r"\s*#\s*friendly_name\s*=", re.IGNORECASE)
_EXPIRES: Final = re.compile(r"\s*#\s*expires\s*=", re.IGNORECASE)
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
    EXPIRES = auto()
    """`# expires = TIME`: a comment that `tunnel peer add --expires` writes."""
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


def tokenize(text: str) -> list[Token]:
    """Split `text` into tokens. Never fails; mistakes are tokens too.

    What follows a hook that ends in a backslash belongs to that hook, whose value is the mistake.
    """
    tokens = []
    continued = False
    for number, line in enumerate(text.split("\n"), 1):
        was_continued, continued = continued, continued and is_continued(line.rstrip())
        token = None if was_continued else _tokenize_line(number, line)
        if token is not None:
            continued = token.name.lower() in HOOKS and is_continued(token.value)
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
    expires = _EXPIRES.match(line)
    if expires is not None:
        return _entry(Kind.EXPIRES, number, "", line, expires.end(), -1)
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


class Entry(NamedTuple):
    """A value and the line it stands on."""

    line: int
    text: str


class SectionLines:
    """The entries of one section. `line` is that of its header.

    `friendly_name` and `expires` are what comments of it say, `refused` the keys of lines that are
    not as lines should be, in lower case.
    """

    def __init__(self, title: str, line: int | None = None) -> None:
        self.title = title
        self.line = line
        self.friendly_name = ""
        self.expires: Entry | None = None
        self.refused: set[str] = set()
        self._entries: dict[str, list[Entry]] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry of the key `name`, in lower case."""
        self._entries.setdefault(name, []).append(entry)

    def get(self, name: str) -> list[Entry]:
        """Return the entries of a key, in any case and in order; none if it is not there."""
        return self._entries.get(name.lower(), [])


class Sections:
    """A whole conf: repeated [Interface] and [Tunnel] are one, every [Peer] is its own."""

    def __init__(self) -> None:
        self.interface = SectionLines("Interface")
        self.tunnel = SectionLines("Tunnel")
        self.peers: list[SectionLines] = []


def sort(tokens: list[Token], problems: Problems) -> Sections:
    """Put every entry under its section, and report lines that belong nowhere."""
    sections = Sections()
    lines: SectionLines | None = None
    unknown = False  # the keys of a section that was refused are not refused once more
    for token in tokens:
        # `=======` is an entry without a name.
        mark = None if token.name.isalpha() else foreign_mark(token.name or f"={token.value}")
        if mark is not None:
            problems.error(token.line, "", mark.fault, mark.remedy)
            continue
        unsigned = _unsigned(token)
        if unsigned is not None:
            key = unsigned.name
            fault = f'{key} has no "=" between it and its value'
            problems.error(token.line, key, fault, f"write {key} = and the value")
            if lines is not None:
                lines.refused.add(key.lower())
            continue
        sign = COMMENT.match(token.name)
        if sign is not None:
            problems.error(
                token.line,
                "",
                f'"{sign[1]}" does not begin a comment in a conf: only # does',
                f"write # in place of {sign[1]}",
            )
            continue
        match token.kind:
            case Kind.HEADER:
                lines = _open(token, sections, problems)
                unknown = lines is None
            case Kind.FRIENDLY_NAME:
                if lines is not None:
                    # Programs that read it take UTF-8 alone.
                    value = token.value.encode("utf-8", "surrogateescape")
                    lines.friendly_name = value.decode("utf-8", "replace")
            case Kind.EXPIRES:
                if lines is not None:
                    lines.expires = Entry(token.line, token.value)
            case Kind.MARKED:
                _place(token, sections.tunnel, problems)
            case Kind.ENTRY:
                if lines is not None:
                    _place(token, lines, problems)
                elif not unknown:
                    shown = _shown(token.name)
                    problems.error(
                        token.line,
                        shown,
                        f"{shown} stands before the first section",
                        "put [Interface] or [Peer] on a line of its own above it",
                    )
            case Kind.NOISE:
                problems.error(
                    token.line,
                    "",
                    "this line (not shown) has no '=': it must be Key = value, [Section] "
                    "or # comment",
                    "add what is missing, or put # in front",
                )
            case Kind.BROKEN_MARK:
                problems.error(
                    token.line,
                    "#! tunnel",
                    'a line that begins with "#! tunnel" must be "#! tunnel: Key = value"',
                    "write it so, or remove the '!' to make it a comment",
                )
    return sections


def _unsigned(token: Token) -> ConfKey | None:
    """The key of a line that has a colon or a blank where "=" should be."""
    if token.kind not in (Kind.ENTRY, Kind.NOISE) or (
        token.name.isalpha() and len(token.name) < _LONGEST_KEY
    ):
        return None
    for section in SECTIONS.values():
        for name, key in keys_of(section).items():
            rest = token.name[len(name) :]
            # What has its "=" later may be a key of that form.
            begins = _VALUE.match(rest) if token.kind is Kind.NOISE else _KEY_OR_COLON.match(rest)
            if begins is not None and token.name.lower().startswith(name):
                return key
    return None


def _open(token: Token, sections: Sections, problems: Problems) -> SectionLines | None:
    match token.name.lower():
        case "[interface]":
            sections.interface.line = sections.interface.line or token.line
            return sections.interface
        case "[tunnel]":
            return sections.tunnel
        case "[peer]":
            sections.peers.append(SectionLines("Peer", token.line))
            return sections.peers[-1]
    header, _, rest = token.name.partition("]")
    if rest:
        problems.error(
            token.line,
            "",
            f"there is something else after {quote(header + ']')}",
            "put it on a line of its own, or # in front of it if it is a comment",
        )
        return _named(header + "]", token, sections, problems)
    named = _NAMED_HEADER.fullmatch(header)
    if named is not None:
        title = named[1].title()
        problems.error(
            token.line,
            "",
            f"[{title}] has something else in its brackets",
            f"write [{title}] alone; a name may stand in a comment: # …",
        )
        return _named(f"[{title}]", token, sections, problems)
    meant = _NETWORKD.get(header.lower()) or closest(header.strip("[").title(), tuple(SECTIONS))
    problems.error(
        token.line,
        "",
        f"{quote(token.name)} is not a section: it must be [Interface], [Peer] or [Tunnel]",
        f"did you mean [{meant}]?" if meant else "check the spelling",
    )
    return None


def _named(
    header: str, token: Token, sections: Sections, problems: Problems
) -> SectionLines | None:
    """The section that a header means that is reported already: its lines are looked at, too."""
    known = header.strip("[]").title() in SECTIONS
    return _open(token._replace(name=header), sections, problems) if known else None


def _place(token: Token, lines: SectionLines, problems: Problems) -> None:
    name = token.name.lower()
    known = keys_of(SECTIONS[lines.title])
    if name in known:
        lines.add(name, Entry(token.line, token.value))
        return
    for title, section in SECTIONS.items():
        if name in keys_of(section):
            shown = keys_of(section)[name].name
            fault = f"{shown} is a key of [{title}], not of [{lines.title}]"
            remedy = f"move the line under [{title}]"
            break
    else:
        shown = _shown(token.name)
        fault = f"{shown} is not a key of [{lines.title}]"
        meant = closest(name, tuple(sorted(known)))
        remedy = "check the spelling, or put # in front"
        foreign = foreign_key(name)
        if foreign is not None:
            fault, remedy = f"{shown} {foreign.fault}", foreign.remedy
        elif meant is not None:
            remedy = f"did you mean {known[meant].name}?"
    problems.error(token.line, shown, fault, remedy)


def _shown(name: str) -> str:
    """Name an unknown key in a message; a stray secret ending in '=' must not be its own name."""
    return name if _SHOWABLE_KEY.fullmatch(name) else "a name of unusual form (not shown)"
